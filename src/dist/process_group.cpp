#include "dist/process_group.h"

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "base/error.h"

namespace frugal::dist {
namespace {

using Store = c10::intrusive_ptr<c10d::Store>;

// Operations may wait long for a rank that writes or evaluates; that it lives, its heartbeats say.
constexpr auto kOperationTimeout = std::chrono::hours(24);
constexpr auto kBeat = std::chrono::seconds(1);

template <typename Call>
auto named(const char* what, const Call& call) {
  try {
    return call();
  } catch (const c10::Error& error) {
    fail(ErrorKind::io, "{}: {}", what, error.what_without_backtrace());
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    fail(ErrorKind::io, "{}: {}", what, error.what());
  }
}

// Each rank counts in the store, and looks whether the others do.
class Heartbeat {
 public:
  Heartbeat(Store store, int rank, int size, const GroupOptions& options)
      : store_(std::move(store)), rank_(rank), size_(size), options_(options), thread_([this] { run(); }) {}
  ~Heartbeat() {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

 private:
  static std::string key(int rank) { return fmt::format("heartbeat/{}", rank); }

  void run() {
    using Time = std::chrono::steady_clock::time_point;
    const Time begin = std::chrono::steady_clock::now();
    std::vector<std::pair<int64_t, Time>> heard(static_cast<size_t>(size_), {-1, begin});
    std::unique_lock lock(mutex_);
    while (!ended_) {
      lock.unlock();
      std::string problem;
      try {
        store_->add(key(rank_), 1);
        for (int rank = 0; rank < size_; ++rank) {
          auto& [count, when] = heard[static_cast<size_t>(rank)];
          const int64_t now = store_->add(key(rank), 0);
          if (now != count) heard[static_cast<size_t>(rank)] = {now, std::chrono::steady_clock::now()};
          if (rank != rank_ && std::chrono::steady_clock::now() - when > options_.lost_after) {
            problem = fmt::format("rank {} was not heard of for {} s: it is stopped or hung, or its machine is gone", rank,
                                  std::chrono::duration_cast<std::chrono::seconds>(options_.lost_after).count());
          }
        }
      } catch (const std::exception& error) {
        problem = "the store through which the ranks hear of each other is gone, and so is the process that has it";
      }
      lock.lock();
      if (!problem.empty() && !ended_) {
        options_.on_lost(problem);
        return;
      }
      wake_.wait_for(lock, kBeat, [this] { return ended_; });
    }
  }

  Store store_;
  int rank_, size_;
  GroupOptions options_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool ended_ = false;
  std::thread thread_;
};

class GlooPending : public Pending {
 public:
  GlooPending(const char* what, c10::intrusive_ptr<c10d::Work> work, at::Tensor tensor) : what_(what), work_(std::move(work)), tensor_(std::move(tensor)) {}
  void wait() override {
    named(what_, [&] { return work_->wait(); });
  }

 private:
  const char* what_;
  c10::intrusive_ptr<c10d::Work> work_;
  at::Tensor tensor_;
};

// Where this rank listens: nowhere else than on this machine when all are there; else on the interface that GLOO_SOCKET_IFNAME names, as in torch, or
// on the one of the machine's name.
std::shared_ptr<gloo::transport::Device> device_of(const Launch& launch) {
  if (const auto interface = process_environment("GLOO_SOCKET_IFNAME")) return c10d::ProcessGroupGloo::createDeviceForInterface(*interface);
  if (launch.local_size == launch.size) return c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1");
  return c10d::ProcessGroupGloo::createDefaultDevice();
}

class GlooGroup : public ProcessGroup {
 public:
  GlooGroup(const Launch& launch, const GroupOptions& options) : rank_(launch.rank), size_(launch.size) {
    c10d::TCPStoreOptions store_options;
    store_options.port = launch.port;
    store_options.isServer = launch.rank == 0 && !launch.store_is_there;
    store_options.waitWorkers = false;
    store_options.timeout = std::chrono::duration_cast<std::chrono::milliseconds>(options.connect_timeout);
    named("the ranks do not find each other", [&] {
      store_ = c10::make_intrusive<c10d::TCPStore>(launch.address, store_options);
      own_ = c10::make_intrusive<c10d::PrefixStore>(launch.prefix, store_);
    });
    device_ = device_of(launch);
    connect_timeout_ = options.connect_timeout;
    meet("gloo");
    // Of its own connection: an operation of another thread may hold the store's for long.
    const Store pulse = store_->clone();
    heartbeat_ = std::make_unique<Heartbeat>(c10::make_intrusive<c10d::PrefixStore>(launch.prefix + "/pulse", pulse), rank_, size_, options);
  }

  // Of `whole`; all its members make one.
  GlooGroup(const GlooGroup& whole, const std::string& name, const std::vector<int>& members, int rank)
      : rank_(rank),
        size_(static_cast<int>(members.size())),
        store_(whole.store_),
        own_(whole.own_),
        device_(whole.device_),
        connect_timeout_(whole.connect_timeout_) {
    meet(name);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  std::unique_ptr<Pending> all_reduce(at::Tensor tensor) override {
    return start("all-reduce", std::move(tensor), [&](std::vector<at::Tensor>& tensors) { return gloo_->allreduce(tensors); });
  }
  std::unique_ptr<Pending> reduce(at::Tensor tensor, int root) override {
    return start("reduce", std::move(tensor), [&](std::vector<at::Tensor>& tensors) {
      c10d::ReduceOptions options;
      options.rootRank = root;
      return gloo_->reduce(tensors, options);
    });
  }
  std::unique_ptr<Pending> broadcast(at::Tensor tensor, int root) override {
    return start("broadcast", std::move(tensor), [&](std::vector<at::Tensor>& tensors) {
      c10d::BroadcastOptions options;
      options.rootRank = root;
      return gloo_->broadcast(tensors, options);
    });
  }
  std::unique_ptr<Pending> send(at::Tensor tensor, int to) override {
    return start("send", std::move(tensor), [&](std::vector<at::Tensor>& tensors) { return gloo_->send(tensors, to, 0); });
  }
  void receive(at::Tensor tensor, int from) override {
    start("receive", std::move(tensor), [&](std::vector<at::Tensor>& tensors) { return gloo_->recv(tensors, from, 0); })->wait();
  }

  std::vector<std::string> all_gather(const std::string& text) override {
    at::Tensor sizes = at::zeros({size_}, at::kLong);
    sizes.mutable_data_ptr<int64_t>()[rank_] = static_cast<int64_t>(text.size());
    all_reduce(sizes)->wait();
    const int64_t longest = sizes.max().item<int64_t>();
    std::vector<std::string> texts(static_cast<size_t>(size_));
    if (longest == 0) return texts;
    at::Tensor all = at::zeros({size_, longest}, at::kByte);
    std::copy(text.begin(), text.end(), all.mutable_data_ptr<uint8_t>() + rank_ * longest);
    all_reduce(all)->wait();  // all but one are zero
    for (int rank = 0; rank < size_; ++rank) {
      const uint8_t* begin = all.const_data_ptr<uint8_t>() + rank * longest;
      texts[static_cast<size_t>(rank)].assign(begin, begin + sizes.const_data_ptr<int64_t>()[rank]);
    }
    return texts;
  }

  std::unique_ptr<ProcessGroup> subgroup(const std::vector<int>& members) override {
    const auto found = std::find(members.begin(), members.end(), rank_);
    FRUGAL_ASSERT(found != members.end());
    if (members.size() == 1) return std::make_unique<SingleProcess>();
    const std::string name = fmt::format("gloo of {}", fmt::join(members, ","));
    return std::make_unique<GlooGroup>(*this, fmt::format("{} ({})", name, ++made_[name]), members, static_cast<int>(found - members.begin()));
  }

  void leave() override {
    heartbeat_.reset();  // before rank 0 takes the store away
    all_gather("");
  }

 private:
  // Connects all ranks, each of which gives the same name.
  void meet(const std::string& name) {
    named("the ranks do not find each other", [&] {
      auto options = c10d::ProcessGroupGloo::Options::create(connect_timeout_);
      options->devices.push_back(device_);
      gloo_ = c10::make_intrusive<c10d::ProcessGroupGloo>(c10::make_intrusive<c10d::PrefixStore>(name, own_), rank_, size_, options);
      at::Tensor all = at::zeros({1});
      all_reduce(all)->wait();  // all are there
      gloo_->setTimeout(std::chrono::duration_cast<std::chrono::milliseconds>(kOperationTimeout));
    });
  }

  template <typename Call>
  std::unique_ptr<Pending> start(const char* what, at::Tensor tensor, const Call& call) {
    FRUGAL_ASSERT(tensor.is_contiguous() && tensor.is_cpu());
    std::vector<at::Tensor> tensors = {tensor.detach()};
    return named(what, [&] { return std::make_unique<GlooPending>(what, call(tensors), tensors.front()); });
  }

  int rank_, size_;
  c10::intrusive_ptr<c10d::TCPStore> store_;
  Store own_;  // this start's keys in it
  std::shared_ptr<gloo::transport::Device> device_;
  std::chrono::milliseconds connect_timeout_;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo_;
  std::unique_ptr<Heartbeat> heartbeat_;
  std::map<std::string, int> made_;  // subgroups, of which several may have the same members
};

class Done : public Pending {
 public:
  void wait() override {}
};

}  // namespace

std::unique_ptr<ProcessGroup> connect(const Launch& launch, const GroupOptions& options) {
  if (launch.size == 1) return std::make_unique<SingleProcess>();
  FRUGAL_ASSERT(options.on_lost);
  return std::make_unique<GlooGroup>(launch, options);
}

std::unique_ptr<Pending> SingleProcess::all_reduce(at::Tensor) { return std::make_unique<Done>(); }
std::unique_ptr<Pending> SingleProcess::reduce(at::Tensor, int) { return std::make_unique<Done>(); }
std::unique_ptr<Pending> SingleProcess::broadcast(at::Tensor, int) { return std::make_unique<Done>(); }
std::unique_ptr<Pending> SingleProcess::send(at::Tensor, int) { fail(ErrorKind::internal, "a process cannot send to itself"); }
void SingleProcess::receive(at::Tensor, int) { fail(ErrorKind::internal, "a process cannot receive from itself"); }

}  // namespace frugal::dist
