#include "serve/http/event_loop.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "serve/http/connection.h"

namespace frugal::serve {
namespace {

constexpr size_t kScratchBytes = 64 << 10;

// Fine enough for the shortest time-out; a test's are short.
std::chrono::microseconds tick_of(const HttpTimeouts& t) {
  const double shortest = std::min({t.header, t.body_idle, t.body, t.keep_alive, t.slow_reader, t.linger, t.probe});
  return std::chrono::microseconds(static_cast<int64_t>(std::clamp(shortest / 10, 0.005, 0.1) * 1e6));
}

}  // namespace

EventLoop::EventLoop(std::shared_ptr<const ServerCore> core)
    : core_(std::move(core)),
      work_(context_.get_executor()),
      tick_timer_(context_),
      tick_(tick_of(core_->options.timeouts)),
      wakes_(context_),
      scratch_(kScratchBytes) {
  const int fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (fd < 0) fail_errno("eventfd", "http");
  wakes_.assign(fd);
  await_wakes();
  thread_ = std::thread([this] { run(); });
}

EventLoop::~EventLoop() { stop(); }

void EventLoop::run() {
  for (;;) {
    try {
      context_.run();
      return;
    } catch (const std::exception& error) {  // of one event; connections catch their own
      log_warning("http: an event failed: {}", printable(error.what()));
    }
  }
}

void EventLoop::adopt(int fd, std::string remote) {
  post([this, fd, remote = std::move(remote)]() mutable {
    std::shared_ptr<Connection> connection;
    try {
      connection = std::make_shared<Connection>(*this, fd, std::move(remote));
      connections_.emplace(connection.get(), connection);
      connection->begin();
    } catch (const std::exception&) {  // out of memory, or the reactor is full
      if (connection) {
        connection->close();
      } else {
        ::close(fd);
        --core_->counts->connections;
      }
    }
  });
}

std::vector<std::shared_ptr<Connection>> EventLoop::all() const {
  std::vector<std::shared_ptr<Connection>> connections;
  for (const auto& [key, connection] : connections_) connections.push_back(connection);
  return connections;
}

void EventLoop::close_idle() {
  post([this] {
    for (const auto& connection : all()) connection->close_if_idle();
  });
}

void EventLoop::stop() {
  if (!thread_.joinable()) return;
  post([this] {
    for (const auto& connection : all()) connection->close();
    tick_timer_.cancel();
    wakes_.close();
    work_.reset();
  });
  thread_.join();
}

void EventLoop::wake(const std::shared_ptr<WakeCall>& call) noexcept {
  const std::lock_guard lock(wake_mutex_);
  if (std::exchange(call->queued, true)) return;
  call->next = std::exchange(calls_, call);
  constexpr uint64_t kOne = 1;
  if (!call->next) (void)!::write(wakes_.native_handle(), &kOne, sizeof kOne);
}

void EventLoop::await_wakes() {
  wakes_.async_wait(boost::asio::posix::stream_descriptor::wait_read, [this](const boost::system::error_code& error) {
    if (!error) on_wakes();
  });
}

void EventLoop::on_wakes() {
  await_wakes();
  std::shared_ptr<WakeCall> calls;
  {
    const std::lock_guard lock(wake_mutex_);
    uint64_t count = 0;
    (void)!::read(wakes_.native_handle(), &count, sizeof count);
    calls.swap(calls_);
  }
  while (calls) {
    const std::shared_ptr<WakeCall> call = std::move(calls);
    {
      const std::lock_guard lock(wake_mutex_);
      calls = std::move(call->next);
      call->queued = false;  // from here on it may be called again
    }
    if (const auto connection = call->connection.lock()) connection->on_wake();
  }
}

void EventLoop::set_deadline(Connection& connection, double seconds) {
  connection.deadline = seconds;
  if (seconds >= connection.queued_deadline) return;  // the earlier entry will look again
  deadlines_.erase({connection.queued_deadline, &connection});
  connection.queued_deadline = seconds;
  deadlines_.emplace(seconds, &connection);
  arm_tick();
}

void EventLoop::forget(Connection& connection) {
  deadlines_.erase({connection.queued_deadline, &connection});
  connections_.erase(&connection);
}

void EventLoop::arm_tick() {
  if (ticking_ || deadlines_.empty()) return;
  ticking_ = true;
  tick_timer_.expires_after(tick_);
  tick_timer_.async_wait([this](const boost::system::error_code& error) {
    ticking_ = false;
    if (!error) tick();
  });
}

void EventLoop::tick() {
  const double time = now();
  while (!deadlines_.empty() && deadlines_.begin()->first <= time) {
    Connection& connection = *deadlines_.begin()->second;
    deadlines_.erase(deadlines_.begin());
    connection.queued_deadline = Connection::kNever;
    if (connection.deadline > time) {
      if (connection.deadline < Connection::kNever) set_deadline(connection, connection.deadline);
      continue;
    }
    connection.deadline = Connection::kNever;
    connection.on_deadline();
  }
  arm_tick();
}

}  // namespace frugal::serve
