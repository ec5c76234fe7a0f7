// The processes that train together, and what they tell each other: collectives of c10d, over Gloo.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "dist/launch.h"

namespace frugal::dist {

// An operation that goes on beside the program. Its tensor must not be touched before wait() returns.
class Pending {
 public:
  virtual ~Pending() = default;
  virtual void wait() = 0;  // Throws Error{io} that says which operation failed: a process has ended, or the network failed.
};

// All ranks must call the same operations in the same order, with tensors of one shape and type (contiguous, on the CPU). Each throws Error{io} when
// another rank has ended. Called by one thread at a time.
class ProcessGroup {
 public:
  virtual ~ProcessGroup() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // The sum over all ranks, in place, equal to the bit on all of them.
  virtual std::unique_ptr<Pending> all_reduce(at::Tensor tensor) = 0;
  // The sum over all ranks, in place at `root`; what the others have in the tensor afterwards is not defined.
  virtual std::unique_ptr<Pending> reduce(at::Tensor tensor, int root) = 0;
  // What `root` has.
  virtual std::unique_ptr<Pending> broadcast(at::Tensor tensor, int root) = 0;
  // Between two ranks messages arrive in the order in which they are sent.
  virtual std::unique_ptr<Pending> send(at::Tensor tensor, int to) = 0;
  virtual void receive(at::Tensor tensor, int from) = 0;
  // What each rank says, by rank.
  virtual std::vector<std::string> all_gather(const std::string& text) = 0;
  // A group of some of these ranks, numbered in the order given; called by its members, and no longer used when this one is left. Its operations and
  // this one's do not wait for each other.
  virtual std::unique_ptr<ProcessGroup> subgroup(const std::vector<int>& members) = 0;
  // The last call: returns when all ranks are done. One that ends without it is an error to the others.
  virtual void leave() = 0;

  bool leads() const { return rank() == 0; }
};

struct GroupOptions {
  std::chrono::milliseconds connect_timeout = std::chrono::minutes(5);
  // A rank that was not heard of for so long is lost: stopped, hung, or its machine is gone. (One that ends is noticed at once.)
  std::chrono::milliseconds lost_after = std::chrono::seconds(20);
  // Called on a thread of its own with what is known; the program's operations may wait for ever, so it should end the program.
  std::function<void(const std::string& what)> on_lost;
};

// Connects with the other processes of the launch; returns when all are there. Throws Error{io} when they are not within connect_timeout.
std::unique_ptr<ProcessGroup> connect(const Launch& launch, const GroupOptions& options);

// What this process knows by itself.
class SingleProcess : public ProcessGroup {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::unique_ptr<Pending> all_reduce(at::Tensor tensor) override;
  std::unique_ptr<Pending> reduce(at::Tensor tensor, int root) override;
  std::unique_ptr<Pending> broadcast(at::Tensor tensor, int root) override;
  std::unique_ptr<Pending> send(at::Tensor tensor, int to) override;
  void receive(at::Tensor tensor, int from) override;
  std::vector<std::string> all_gather(const std::string& text) override { return {text}; }
  std::unique_ptr<ProcessGroup> subgroup(const std::vector<int>&) override { return std::make_unique<SingleProcess>(); }
  void leave() override {}
};

}  // namespace frugal::dist
