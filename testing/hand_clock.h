// A clock that goes as the test says.
#pragma once

#include <atomic>

#include "base/clock.h"

namespace frugal {

class HandClock : public Clock {
 public:
  double seconds() const override { return seconds_; }
  int64_t unix_time() const override { return unix_time_; }
  void advance(double by) { seconds_ = seconds_ + by; }
  void set_wall(int64_t time) { unix_time_ = time; }

 private:
  std::atomic<double> seconds_ = 1000;
  std::atomic<int64_t> unix_time_ = 784111777;
};

}  // namespace frugal
