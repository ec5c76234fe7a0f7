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
  const uint64_t alignment = bytes >= 2 * kHugePage ? kHugePage : 64;
  const uint64_t rounded = checked_round_up<uint64_t>(bytes, alignment, "aligned buffer");
  data_ = static_cast<std::byte*>(std::aligned_alloc(alignment, rounded));
  if (data_ == nullptr) fail(ErrorKind::out_of_memory, "no memory for a buffer of {} bytes", bytes);
  if (alignment == kHugePage) madvise(data_, rounded, MADV_HUGEPAGE);  // a hint: where refused, small pages do
  if (fill == Fill::zeros) std::memset(data_, 0, rounded);
  bytes_ = bytes;
}

AlignedBuffer::~AlignedBuffer() { std::free(data_); }

}  // namespace frugal::kernels
