// The solver that GPTQ (arXiv 2210.17323) and SparseGPT (2301.00774) share. Columns of a weight W [out, in] are settled one
// after another (rounded, dropped or kept), and what a column's change does to the layer's output is made good, as far as
// the inputs allow, by the columns not yet settled: minimise trace(E H E^T), E = W - result, H = X^T X / tokens.
//
// As in the papers, with U upper triangular and H^-1 = U^T U (H with its damping), settling column j at e_j off its target moves
// the target of every later column k by -e_j U[j, k] / U[j, j]. U comes from one Cholesky factorisation instead of theirs of
// the inverse: reversed, H = R R^T with R upper triangular, and U = R^-1. (Feeding w - result forward through R itself, as LDLQ
// does, needs no inverse, but then the targets of later columns are right only when their turn comes; groups and masks are
// chosen from the targets of columns not yet reached.)
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace frugal::chain {

using at::Tensor;

struct ErrorFeedback {
  Tensor factor;  // [in, in]: U[j, k] / U[j, j], unit upper triangular
  Tensor pivot;   // [in]: 1 / U[j, j]; an error e of column j costs (e * pivot[j])^2
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

  // What a column of the block should be, given all that were settled so far.
  T target(int64_t column) const { return targets_[column - begin]; }
  const T* targets() const { return targets_; }  // [end - begin]
  void settle(int64_t column, T value) {
    const T error = targets_[column - begin] - value;
    const T* factor = factor_ + column * columns_;
    result_[column] = value;
    errors_[column - begin] = error;
    for (int64_t c = column + 1; c < end; ++c) targets_[c - begin] -= error * factor[c];
  }

  // targets, errors [end - begin]; result [columns]; factor [columns, columns].
  RowSweep(int64_t row, int64_t begin, int64_t end, T* targets, T* errors, T* result, const T* factor, int64_t columns)
      : row(row), begin(begin), end(end), targets_(targets), errors_(errors), result_(result), factor_(factor), columns_(columns) {}

 private:
  T* targets_;
  T* errors_;
  T* result_;
  const T* factor_;
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
