// Time, injectable: durations come from a steady clock, timestamps from the wall clock. Tests pass a fake.
#pragma once

#include <chrono>
#include <string>

namespace frugal {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual double seconds() const = 0;     // steady, arbitrary origin
  virtual int64_t unix_time() const = 0;  // wall clock, whole seconds
};

const Clock& system_clock();

// Wall time of a scope or a step, in seconds.
class Stopwatch {
 public:
  explicit Stopwatch(const Clock& clock = system_clock()) : clock_(clock), start_(clock.seconds()) {}
  double seconds() const { return clock_.seconds() - start_; }

 private:
  const Clock& clock_;
  double start_;
};

// "2026-11-24T17:44:38Z"
std::string utc_timestamp(int64_t unix_time);

}  // namespace frugal
