#include "kernels/cpu/gemm.h"

#include <algorithm>

#include "base/error.h"
#include "base/team.h"
#include "kernels/cpu/aligned_buffer.h"
#include "kernels/cpu/kernel_table.h"

namespace frugal::kernels {
namespace {

// Along k, so that a panel of b (16 or 32 columns) stays in the first cache; rows of a that one thread takes at once stay in the second.
constexpr int64_t kDepth = 384;
constexpr int64_t kBlockBytes = 192 << 10;
// Columns of b that are packed at once stay in the third.
constexpr int64_t kColumns = 4096;

int64_t rounded_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

const void* element(const MatrixView& view, int64_t row, int64_t column) {
  const int64_t size = view.type == FloatType::f32 ? 4 : 2;
  return static_cast<const char*>(view.data) + size * (row * view.row_stride + column * view.column_stride);
}

}  // namespace

void gemm(const Gemm& g) {
  if (g.m < 0 || g.n < 0 || g.k < 0 || g.c_stride < g.n) fail(ErrorKind::invalid_input, "gemm: {} x {} x {}, rows of c {} apart", g.m, g.n, g.k, g.c_stride);
  if (g.m == 0 || g.n == 0) return;
  const KernelTable& table = kernels();
  const int64_t tile_rows = table.gemm_rows, tile_columns = table.gemm_columns;
  const int64_t depth = std::min(kDepth, g.k), columns = std::min(rounded_up(g.n, tile_columns), kColumns);
  // Blocks small enough that every thread gets several.
  const int64_t fair = rounded_up(std::max<int64_t>(1, g.m / (4 * team_size())), tile_rows);
  const int64_t block = std::min({rounded_up(kBlockBytes / (4 * std::max<int64_t>(1, depth)), tile_rows), fair, rounded_up(g.m, tile_rows)});
  if (g.k == 0) {
    for (int64_t row = 0; row < g.m && !g.accumulate; ++row) std::fill_n(g.c + row * g.c_stride, g.n, 0.0f);
    return;
  }
  static thread_local AlignedBuffer b_buffer;
  b_buffer.reserve(static_cast<uint64_t>(columns * depth) * sizeof(float));
  float* const b_panels = reinterpret_cast<float*>(b_buffer.data());
  const int64_t blocks = (g.m + block - 1) / block;
  for (int64_t column = 0; column < g.n; column += kColumns) {
    const int64_t n = std::min(kColumns, g.n - column);
    for (int64_t k = 0; k < g.k; k += depth) {
      const int64_t some = std::min(depth, g.k - k);
      const GemmPackArguments pack_b{element(g.b, k, column), g.b.type, g.precision, g.b.column_stride, g.b.row_stride, n, some, true, b_panels};
      parallel_for((n + tile_columns - 1) / tile_columns, 4, [&](int64_t begin, int64_t end) { table.gemm_pack(pack_b, begin, end); });
      parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
        static thread_local AlignedBuffer a_buffer;
        a_buffer.reserve(static_cast<uint64_t>(block * some) * sizeof(float));
        float* const a_panels = reinterpret_cast<float*>(a_buffer.data());
        for (int64_t i = begin; i < end; ++i) {
          const int64_t row = i * block, m = std::min(block, g.m - row);
          const GemmPackArguments pack_a{element(g.a, row, k), g.a.type, g.precision, g.a.row_stride, g.a.column_stride, m, some, false, a_panels};
          table.gemm_pack(pack_a, 0, (m + tile_rows - 1) / tile_rows);
          table.gemm_block({a_panels, b_panels, m, n, some, g.c + row * g.c_stride + column, g.c_stride, g.alpha, g.accumulate || k > 0});
        }
      });
    }
  }
}

}  // namespace frugal::kernels
