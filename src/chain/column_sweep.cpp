#include "chain/column_sweep.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "base/team.h"
#include "chain/grid.h"

namespace frugal::chain {

ErrorFeedback error_feedback(const Tensor& hessian, double damping, at::ScalarType type) {
  require_finite(hessian, "hessian of the inputs");
  Tensor h = hessian.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);
  Tensor diagonal = h.diagonal();
  const Tensor alive = diagonal > 0;
  const int64_t count = alive.sum().item<int64_t>();
  const double mean = count > 0 ? diagonal.sum().item<double>() / static_cast<double>(count) : 1.0;
  diagonal.masked_fill_(alive.logical_not(), mean);

  double added = 0;
  for (double share = damping; share < 1e3; share = std::max(10 * share, 1e-8)) {
    diagonal.add_(share * mean - added);
    added = share * mean;
    // Reversing rows and columns turns the usual lower factor into the upper one: H = R R^T.
    auto [lower, info] = at::linalg_cholesky_ex(h.flip({0, 1}));
    if (info.item<int>() != 0) continue;
    const Tensor upper = lower.flip({0, 1}), pivot = upper.diagonal();
    const Tensor inverse = at::linalg_solve_triangular(upper, at::eye(h.size(0), h.options()), /*upper=*/true);
    return {(inverse * pivot.unsqueeze(1)).to(type).contiguous(), pivot.to(type).contiguous()};
  }
  fail(ErrorKind::invalid_input, "hessian of the inputs [{}, {}] is far from positive definite", h.size(0), h.size(1));
}

template <typename T>
Tensor sweep_columns(const Tensor& weight, const ErrorFeedback& feedback, int64_t block, const SweepSteps<T>& steps) {
  const Tensor original = weight.contiguous();
  const int64_t rows = original.size(0), columns = original.size(1);
  FRUGAL_ASSERT(block > 0 && feedback.factor.size(0) == columns && feedback.factor.scalar_type() == original.scalar_type());
  Tensor result = at::empty_like(original), errors = at::empty_like(original);
  for (int64_t begin = 0; begin < columns; begin += block) {
    const int64_t end = std::min(begin + block, columns);
    Tensor targets = original.slice(1, begin, end).clone(at::MemoryFormat::Contiguous);
    if (begin > 0) {
      targets = at::addmm(targets, errors.slice(1, 0, begin), feedback.factor.slice(0, 0, begin).slice(1, begin, end), 1, -1);
    }
    Tensor missed = at::empty_like(targets);
    T* data = targets.mutable_data_ptr<T>();
    T* missed_data = missed.mutable_data_ptr<T>();
    if (steps.start_block) steps.start_block(begin, end, data);
    parallel_for(rows, 4, [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        RowSweep<T> sweep(row, begin, end, data + row * (end - begin), missed_data + row * (end - begin), result.mutable_data_ptr<T>() + row * columns,
                          feedback.factor.const_data_ptr<T>(), columns);
        steps.row(sweep);
      }
    });
    errors.slice(1, begin, end).copy_(missed);
  }
  return result;
}

template Tensor sweep_columns<float>(const Tensor&, const ErrorFeedback&, int64_t, const SweepSteps<float>&);
template Tensor sweep_columns<double>(const Tensor&, const ErrorFeedback&, int64_t, const SweepSteps<double>&);

}  // namespace frugal::chain
