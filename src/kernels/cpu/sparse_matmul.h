// out = x * W^T for bitmap-sparse W: only kept entries are stored, row by row.
#pragma once

#include <cstdint>

#include "kernels/cpu/float_matmul.h"

namespace frugal::kernels {

struct SparseMatrix {
  int64_t rows = 0;
  int64_t columns = 0;
  const uint8_t* mask = nullptr;        // [rows, ceil(columns / 8)], LSB first; bits beyond `columns` are 0
  const int64_t* row_starts = nullptr;  // [rows + 1]: index of a row's first kept value
  const void* values = nullptr;         // [row_starts[rows]]
  FloatType type = FloatType::f16;
};

// x, out as in float_matmul.h. Batch-invariant. On the compute team. The mask's bits must agree with row_starts
// (Error{invalid_input} otherwise).
void matmul_sparse(const SparseMatrix& weight, const FloatProduct& product);

}  // namespace frugal::kernels
