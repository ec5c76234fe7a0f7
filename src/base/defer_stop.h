#pragma once

namespace frugal {

// Work that cannot be left half done: while one lives, stop_point() of its thread does not throw Interrupted. Short work only: who asked for a stop waits.
class DeferStop {
 public:
  DeferStop();
  ~DeferStop();
  DeferStop(const DeferStop&) = delete;
  DeferStop& operator=(const DeferStop&) = delete;
};

}  // namespace frugal
