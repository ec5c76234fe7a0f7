// One thread at a time computes, of all models of the process: rotary tables and the compute team are the process's. First come, first
// served: a mutex lets the thread that gives it back take it again at once, while others wait.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace frugal::engine {

// Lockable: std::lock_guard.
class Turn {
 public:
  void lock() {
    std::unique_lock lock(mutex_);
    const uint64_t mine = last_++;
    wake_.wait(lock, [&] { return now_ == mine; });
  }
  void unlock() {
    {
      const std::lock_guard lock(mutex_);
      ++now_;
    }
    wake_.notify_all();
  }
  // Somebody computes or waits to.
  bool busy() const {
    const std::lock_guard lock(mutex_);
    return last_ != now_;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  uint64_t last_ = 0, now_ = 0;
};

inline Turn& compute_turn() {
  static Turn turn;
  return turn;
}

}  // namespace frugal::engine
