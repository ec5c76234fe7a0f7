#pragma once

namespace frugal {

// Work that cannot be left half done, or only where several processes agree on it: while one lives, a stop that is asked for is known (stop_requested), but
// stop_point() and Progress::step() do not throw. Who asked for it waits.
class DeferStop {
 public:
  DeferStop();
  ~DeferStop();
  DeferStop(const DeferStop&) = delete;
  DeferStop& operator=(const DeferStop&) = delete;
};

}  // namespace frugal
