// The solver that GPTQ (arXiv 2210.17323) and SparseGPT (2301.00774) share. Columns of a weight W [out, in] are settled one
// after another (rounded, dropped or kept), and what a column's change does to the layer's output is made good, as far as
// the inputs allow, by the columns not yet settled: minimise trace(E H E^T), E = W - result, H = X^T X / tokens.
//
// The papers hold the inverse Hessian's Cholesky factor and update all later columns after each one. Here the same numbers
// come from H itself: with H + damping = R R^T, R upper triangular, the target of column k is
//   t_k = w_k + sum_{j<k} (w_j - result_j) * F[j, k],   F = R diag(R)^-1   (QuIP, 2307.13304, theorem 6: GPTQ = LDLQ),
// which needs one Cholesky instead of Cholesky, inverse and Cholesky again (in^3 / 3 operations instead of 4 in^3 / 3), and
// one product with F per block of columns.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace frugal::chain {

using at::Tensor;

struct ErrorFeedback {
  Tensor factor;  // [in, in]: F above, unit upper triangular
  Tensor pivot;   // [in]: R[k, k]; an error e of column k costs (e * pivot[k])^2. The papers' 1 / [Hinv^c]_kk
};

// hessian [in, in]. `damping` times the mean of its diagonal is added to the diagonal; where that does not make it positive
// definite, ten times as much, and so on. The diagonal of a dead column (no input was ever non-zero) counts as the mean.
// The Cholesky runs in float64; results are of `type`. Throws Error{invalid_input} when H is not finite.
ErrorFeedback error_feedback(const Tensor& hessian, double damping, at::ScalarType type);

// One row inside one block of columns [begin, end) while it is being settled, left to right.
template <typename T>
class RowSweep {
 public:
  const int64_t row, begin, end;

  // What the column should be, given all that were settled so far; of any column of the block.
  T target(int64_t column) const { return targets_[column - begin]; }
  const T* targets() const { return targets_; }  // [end - begin]
  void settle(int64_t column, T value) {
    const T error = original_[column] - value;
    const T* factor = factor_ + column * columns_;
    result_[column] = value;
    for (int64_t c = column + 1; c < end; ++c) targets_[c - begin] += error * factor[c];
  }

  RowSweep(int64_t row, int64_t begin, int64_t end, T* targets, const T* original, T* result, const T* factor, int64_t columns)
      : row(row), begin(begin), end(end), targets_(targets), original_(original), result_(result), factor_(factor), columns_(columns) {}

 private:
  T* targets_;         // [end - begin]
  const T* original_;  // [columns]
  T* result_;          // [columns]
  const T* factor_;    // [columns, columns]
  int64_t columns_;
};

template <typename T>
struct SweepSteps {
  // Before a block: its targets [rows, end - begin] as they are then. May be empty.
  std::function<void(int64_t begin, int64_t end, const T* targets)> start_block;
  // Settles every column of the block in this row; rows run in parallel.
  std::function<void(RowSweep<T>&)> row;
};

// weight [out, in] of T (float or double), feedback of the same type. Blocks have `block` columns, the last one the rest.
// Returns the result [out, in].
template <typename T>
Tensor sweep_columns(const Tensor& weight, const ErrorFeedback& feedback, int64_t block, const SweepSteps<T>& steps);

}  // namespace frugal::chain
