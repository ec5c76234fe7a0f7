#include <ATen/ATen.h>

#include "base/error.h"
#include "kernels/cpu/float_matmul.h"
#include "nn/float_product.h"
#include "nn/linear.h"
#include "ops/ops.h"

namespace frugal::nn {

Tensor float_product(const Tensor& x, const Tensor& weight, bool invariant) {
  if (!invariant || ops::wants_gradient({x, weight})) return at::linear(x, weight.to(at::kFloat));
  const Tensor input = ops::checked_float(x, "linear input");
  Tensor out = at::empty({input.size(0), weight.size(0)}, input.options());
  const at::ScalarType type = weight.scalar_type();
  kernels::matmul_float({.data = weight.const_data_ptr(),
                         .type = type == at::kFloat  ? kernels::FloatType::f32
                                 : type == at::kHalf ? kernels::FloatType::f16
                                                     : kernels::FloatType::bf16,
                         .rows = weight.size(0),
                         .columns = weight.size(1)},
                        {.x = input.const_data_ptr<float>(), .tokens = input.size(0), .out = out.mutable_data_ptr<float>()});
  return out;
}

DenseKind::DenseKind(Tensor weight) : weight_(std::move(weight)) {
  const at::ScalarType type = weight_.scalar_type();
  FRUGAL_ASSERT(weight_.dim() == 2 && weight_.is_contiguous() && (type == at::kFloat || type == at::kHalf || type == at::kBFloat16));
}

Tensor DenseKind::forward(const Activation& input) const {
  return float_product(input.values(), expanded_.defined() ? expanded_ : weight_, invariant_);
}

Tensor DenseKind::dense() const { return expanded_.defined() ? expanded_ : weight_.to(at::kFloat); }

Tensor DenseKind::rows(const Tensor& ids) const { return weight_.index_select(0, ids).to(at::kFloat); }

std::string DenseKind::describe() const {
  return weight_.scalar_type() == at::kFloat ? "F32" : weight_.scalar_type() == at::kHalf ? "F16" : "BF16";
}

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
