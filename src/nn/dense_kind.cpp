#include <ATen/ATen.h>

#include "base/error.h"
#include "nn/linear.h"
#include "ops/ops.h"
#include "ops/packed_linear.h"

namespace frugal::nn {

DenseKind::DenseKind(Tensor weight) : weight_(std::move(weight)) {
  const at::ScalarType type = weight_.scalar_type();
  FRUGAL_ASSERT(weight_.dim() == 2 && weight_.is_contiguous() && (type == at::kFloat || type == at::kHalf || type == at::kBFloat16));
}

Tensor DenseKind::forward(const Activation& input) const {
  const Tensor& x = input.values();
  if (!weight_.requires_grad() && ops::wants_gradient({x})) return ops::frozen_linear(x, [this] { return dense(); });
  return ops::float_linear(x, expanded_.defined() ? expanded_ : weight_, invariant_);
}

Tensor DenseKind::dense() const { return expanded_.defined() ? expanded_ : weight_.to(at::kFloat); }

Tensor DenseKind::rows(const Tensor& ids) const { return weight_.index_select(0, ids).to(at::kFloat); }

std::string DenseKind::describe() const { return weight_.scalar_type() == at::kFloat ? "F32" : weight_.scalar_type() == at::kHalf ? "F16" : "BF16"; }

void DenseKind::set_execution(Execution execution) {
  invariant_ = execution == Execution::packed;
  const bool copy = execution == Execution::expanded && weight_.scalar_type() != at::kFloat;
  if (!copy) {
    expanded_ = Tensor();
  } else if (!expanded_.defined()) {
    expanded_ = weight_.to(at::kFloat);
  }
}

void DenseKind::for_each_tensor(const std::string& prefix, const TensorVisitor& visit) { visit(prefix + ".weight", weight_); }

}  // namespace frugal::nn
