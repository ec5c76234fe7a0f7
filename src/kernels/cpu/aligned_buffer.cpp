#include "kernels/cpu/aligned_buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "base/checked.h"

namespace frugal::kernels {
namespace {

constexpr uint64_t kHugePage = 2u << 20;

}  // namespace

AlignedBuffer::AlignedBuffer(uint64_t bytes, Fill fill) {
  if (bytes == 0) return;
  const bool large = bytes >= 2 * kHugePage;
  const uint64_t rounded = checked_round_up<uint64_t>(bytes, 64, "aligned buffer");
  void* data = nullptr;
  if (posix_memalign(&data, large ? kHugePage : 64, rounded) != 0) fail(ErrorKind::out_of_memory, "no memory for a buffer of {} bytes", bytes);
  data_ = static_cast<std::byte*>(data);
  // A hint: where refused, small pages do. For the whole huge pages only: the rest of the last one would be memory for nothing.
  if (large) madvise(data_, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  if (fill == Fill::zeros) std::memset(data_, 0, rounded);
  bytes_ = bytes;
}

AlignedBuffer::~AlignedBuffer() { std::free(data_); }

}  // namespace frugal::kernels
