// Bytes of tensors that were allocated on this thread and are still there: torch's allocator reports to it what it would report to torch's profiler.
#pragma once

#include <cstdint>
#include <functional>

namespace frugal::claims {

// Of what `work` allocates, all that lives on when it returns.
int64_t bytes_kept_by(const std::function<void()>& work);

}  // namespace frugal::claims
