// Work that may not end between two points on which several processes agree: a stop that is asked for is known (stop_requested), but stop_point()
// and Progress::step() go on.
#pragma once

namespace frugal {

class DeferredStop {
 public:
  DeferredStop();
  ~DeferredStop();
  DeferredStop(const DeferredStop&) = delete;
  DeferredStop& operator=(const DeferredStop&) = delete;
};

}  // namespace frugal
