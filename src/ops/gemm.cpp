#include "ops/gemm.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "kernels/cpu/gemm.h"
#include "ops/autocast.h"

namespace frugal::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;

kernels::FloatType float_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat: return kernels::FloatType::f32;
    case at::kHalf: return kernels::FloatType::f16;
    case at::kBFloat16: return kernels::FloatType::bf16;
    default: fail(ErrorKind::internal, "a matrix must be of float32, float16 or bfloat16, is of {}", at::toString(type));
  }
}

kernels::MatrixView view_of(const Tensor& x) {
  if (!x.device().is_cpu() || x.dim() != 2) fail(ErrorKind::internal, "a matrix must have two dimensions and be on the CPU");
  return {x.const_data_ptr(), x.stride(0), x.stride(1), float_type(x.scalar_type())};
}

class DenseLinear : public torch::autograd::Function<DenseLinear> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight) {
    const at::ScalarType type = activation_type(x);
    const Tensor input = x.to(type);
    // What the other's gradient needs.
    context->save_for_backward({weight.requires_grad() ? input : Tensor(), x.requires_grad() ? weight : Tensor()});
    context->saved_data["input_type"] = x.scalar_type();
    return gemm(input, weight.t(), type).to(type);
  }
  static torch::autograd::variable_list backward(AutogradContext* context, torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const Tensor& gradient = gradients[0];
    const at::ScalarType type = gradient.scalar_type();
    return {saved[1].defined() ? gemm(gradient, saved[1], type).to(context->saved_data["input_type"].toScalarType()) : Tensor(),
            saved[0].defined() ? gemm(gradient.t(), saved[0], type) : Tensor()};
  }
};

}  // namespace

void gemm_into(Tensor& c, const Tensor& a, const Tensor& b, double alpha, bool accumulate, at::ScalarType precision) {
  const kernels::MatrixView left = view_of(a), right = view_of(b);
  FRUGAL_ASSERT(view_of(c).type == kernels::FloatType::f32);
  FRUGAL_ASSERT(a.size(1) == b.size(0) && c.size(0) == a.size(0) && c.size(1) == b.size(1) && (c.stride(1) == 1 || c.size(1) == 1));
  kernels::gemm({.m = a.size(0),
                 .n = b.size(1),
                 .k = a.size(1),
                 .a = left,
                 .b = right,
                 .c = c.mutable_data_ptr<float>(),
                 .c_stride = std::max(c.stride(0), c.size(1)),
                 .alpha = static_cast<float>(alpha),
                 .accumulate = accumulate,
                 .precision = float_type(precision)});
}

Tensor gemm(const Tensor& a, const Tensor& b, at::ScalarType precision) {
  Tensor c = at::empty({a.size(0), b.size(1)}, at::kFloat);
  gemm_into(c, a, b, 1, false, precision);
  return c;
}

Tensor dense_linear(const Tensor& x, const Tensor& weight) { return DenseLinear::apply(x, weight); }

}  // namespace frugal::ops
