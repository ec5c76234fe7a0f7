#include "kernels/cpu/sparse_matmul.h"

#include <bit>
#include <vector>

#include "base/checked.h"
#include "kernels/cpu/half.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/work_queue.h"

namespace frugal::kernels {
namespace {

void check(const SparseMatrix& weight) {
  if (weight.rows < 0 || weight.columns < 0) fail(ErrorKind::invalid_input, "sparse product: {} x {}", weight.rows, weight.columns);
  const int64_t mask_bytes = (weight.columns + 7) / 8;
  for (int64_t row = 0; row < weight.rows; ++row) {
    int64_t kept = 0;
    const uint8_t* mask = weight.mask + row * mask_bytes;
    for (int64_t i = 0; i < mask_bytes; ++i) kept += std::popcount(mask[i]);
    const bool tail = weight.columns % 8 != 0 && (mask[mask_bytes - 1] >> (weight.columns % 8)) != 0;
    if (tail || weight.row_starts[row + 1] - weight.row_starts[row] != kept) {
      fail(ErrorKind::invalid_input, "sparse product: row {} keeps {} entries by its mask, {} by its start{}", row, kept,
           weight.row_starts[row + 1] - weight.row_starts[row], tail ? "; bits beyond the last column" : "");
    }
  }
}

// A row to dense floats: dropped entries 0.
void expand_row(const SparseMatrix& weight, int64_t row, float* dense) {
  const uint8_t* mask = weight.mask + row * ((weight.columns + 7) / 8);
  int64_t next = weight.row_starts[row];
  for (int64_t c = 0; c < weight.columns; ++c) {
    if (((mask[c / 8] >> (c % 8)) & 1) == 0) {
      dense[c] = 0;
    } else if (weight.type == FloatType::f32) {
      dense[c] = static_cast<const float*>(weight.values)[next++];
    } else {
      const uint16_t half = static_cast<const uint16_t*>(weight.values)[next++];
      dense[c] = weight.type == FloatType::f16 ? half_to_float(half) : std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
    }
  }
}

}  // namespace

// Rows are expanded 32 at a time and multiplied as dense ones: the memory traffic is that of the sparse form, the arithmetic
// that of the dense.
void matmul_sparse(const SparseMatrix& weight, const FloatProduct& product) {
  check(weight);
  const int64_t x_stride = product.x_stride == 0 ? weight.columns : product.x_stride;
  const int64_t out_stride = product.out_stride == 0 ? weight.rows : product.out_stride;
  if (product.tokens < 0 || x_stride < weight.columns || out_stride < weight.rows) {
    fail(ErrorKind::invalid_input, "sparse product: {} tokens, strides {} and {}", product.tokens, x_stride, out_stride);
  }
  for_each_chunk(weight.rows, 32, true, [&](int64_t begin, int64_t end) {
    std::vector<float> dense(static_cast<size_t>(32 * weight.columns));
    for (int64_t row = begin; row < end; row += 32) {
      const int64_t rows = std::min<int64_t>(32, end - row);
      for (int64_t r = 0; r < rows; ++r) expand_row(weight, row + r, dense.data() + r * weight.columns);
      FloatArguments a;
      a.weight = dense.data();
      a.type = FloatType::f32;
      a.weight_stride = weight.columns;
      a.columns = weight.columns;
      a.x = product.x;
      a.x_stride = x_stride;
      a.tokens = product.tokens;
      a.out = product.out + row;
      a.out_stride = out_stride;
      a.accumulate = product.accumulate;
      kernels().matmul_float(a, 0, rows);
    }
  });
}

}  // namespace frugal::kernels
