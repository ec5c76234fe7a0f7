#include "ops/gemm.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"
#include "kernels/cpu/gemm.h"

namespace frugal::ops {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;

kernels::MatrixView view_of(const Tensor& x) {
  if (x.scalar_type() != at::kFloat || !x.device().is_cpu() || x.dim() != 2) fail(ErrorKind::internal, "a matrix must be float32 on the CPU");
  return {x.const_data_ptr<float>(), x.stride(0), x.stride(1)};
}

class DenseLinear : public torch::autograd::Function<DenseLinear> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight) {
    // What the other's gradient needs.
    context->save_for_backward({weight.requires_grad() ? x : Tensor(), x.requires_grad() ? weight : Tensor()});
    return gemm(x, weight.t());
  }
  static torch::autograd::variable_list backward(AutogradContext* context, torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const Tensor& gradient = gradients[0];
    return {saved[1].defined() ? gemm(gradient, saved[1]) : Tensor(), saved[0].defined() ? gemm(gradient.t(), saved[0]) : Tensor()};
  }
};

}  // namespace

void gemm_into(Tensor& c, const Tensor& a, const Tensor& b, double alpha, bool accumulate) {
  const kernels::MatrixView left = view_of(a), right = view_of(b);
  view_of(c);
  FRUGAL_ASSERT(a.size(1) == b.size(0) && c.size(0) == a.size(0) && c.size(1) == b.size(1) && (c.stride(1) == 1 || c.size(1) == 1));
  kernels::gemm({.m = a.size(0),
                 .n = b.size(1),
                 .k = a.size(1),
                 .a = left,
                 .b = right,
                 .c = c.mutable_data_ptr<float>(),
                 .c_stride = std::max(c.stride(0), c.size(1)),
                 .alpha = static_cast<float>(alpha),
                 .accumulate = accumulate});
}

Tensor gemm(const Tensor& a, const Tensor& b) {
  Tensor c = at::empty({a.size(0), b.size(1)}, at::kFloat);
  gemm_into(c, a, b);
  return c;
}

Tensor dense_linear(const Tensor& x, const Tensor& weight) { return DenseLinear::apply(x, weight); }

}  // namespace frugal::ops
