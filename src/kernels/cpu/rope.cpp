#include "kernels/cpu/rope.h"

#include <algorithm>

#include "base/error.h"
#include "base/team.h"
#include "kernels/cpu/kernel_table.h"

namespace frugal::kernels {

void rope(float* x, int64_t rows, int64_t stride, const int64_t* positions, const float* cos, const float* sin, int64_t table_rows,
          const RopeOptions& options) {
  const int64_t width = options.heads * options.head_dim;
  if (rows < 0 || options.heads < 1 || options.head_dim < 1 || stride < width) {
    fail(ErrorKind::invalid_input, "rope: {} rows of {} heads x {}, stride {}", rows, options.heads, options.head_dim, stride);
  }
  if (options.rotary_dim < 0 || options.rotary_dim % 2 != 0 || options.rotary_dim > options.head_dim) {
    fail(ErrorKind::invalid_input, "rope: rotary_dim must be even and at most {}, is {}", options.head_dim, options.rotary_dim);
  }
  for (int64_t r = 0; r < rows; ++r) {
    if (positions[r] < 0 || positions[r] >= table_rows) {
      fail(ErrorKind::invalid_input, "rope: position {} is outside the table of {} rows", positions[r], table_rows);
    }
  }
  const RopeArguments a{x, stride, positions, cos, sin, options.heads, options.head_dim, options.rotary_dim};
  const KernelTable& table = kernels();
  const auto apply = options.pairs == RopePairs::halves ? table.rope_halves : table.rope_interleaved;
  parallel_for(rows, std::max<int64_t>(1, 16384 / width), [&](int64_t begin, int64_t end) { apply(a, begin, end); });
}

}  // namespace frugal::kernels
