#include "claims/activation_meter.h"

#include <c10/core/Allocator.h>

#include <memory>

namespace frugal::claims {
namespace {

class Meter final : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device) override { bytes += size; }  // negative: freed
  bool memoryProfilingEnabled() const override { return true; }
  int64_t bytes = 0;
};

}  // namespace

int64_t bytes_kept_by(const std::function<void()>& work) {
  const auto meter = std::make_shared<Meter>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, meter);
  work();
  return meter->bytes;
}

}  // namespace frugal::claims
