#include "kernels/cpu/rope.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "base/error.h"
#include "ops/autocast.h"
#include "ops/into.h"

namespace frugal::ops {
namespace {

using torch::autograd::AutogradContext;

Tensor rotated(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin, at::ScalarType type) {
  Tensor out = checked_float(x.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true), "rope input");
  rope_in_place(out, positions, cos, sin);
  return out.to(type);
}

// The gradient turns back.
class Rope : public torch::autograd::Function<Rope> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin) {
    context->save_for_backward({positions, cos, sin});
    context->saved_data["input_type"] = x.scalar_type();
    return rotated(x, positions, cos, sin, activation_type(x));
  }
  static torch::autograd::variable_list backward(AutogradContext* context, torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    return {rotated(gradients[0], saved[0], saved[1], saved[2].neg(), context->saved_data["input_type"].toScalarType()), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

Tensor rope_reference(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin) {
  const int64_t half = cos.size(1);
  const Tensor c = cos.index_select(0, positions).unsqueeze(1);  // [tokens, 1, half]
  const Tensor s = sin.index_select(0, positions).unsqueeze(1);
  const Tensor a = x.slice(-1, 0, half);
  const Tensor b = x.slice(-1, half, 2 * half);
  return at::cat({a * c - b * s, b * c + a * s, x.slice(-1, 2 * half)}, -1);
}

Tensor rope(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin) {
  return wants_gradient({x}) ? Rope::apply(x, positions, cos, sin) : rotated(x, positions, cos, sin, activation_type(x));
}

void rope_in_place(Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin, RowRange range) {
  FRUGAL_ASSERT(x.dim() == 3 && x.is_contiguous() && positions.numel() == x.size(0) && cos.sizes() == sin.sizes());
  const Tensor index = positions.contiguous();
  const Tensor cosines = checked_float(cos, "rope cos"), sines = checked_float(sin, "rope sin");
  const int64_t width = x.size(1) * x.size(2);
  kernels::rope(x.mutable_data_ptr<float>() + range.begin * width, std::min(range.end, x.size(0)) - range.begin, width,
                index.const_data_ptr<int64_t>() + range.begin, cosines.const_data_ptr<float>(), sines.const_data_ptr<float>(), cosines.size(0),
                {.heads = x.size(1), .head_dim = x.size(2), .rotary_dim = 2 * cosines.size(1)});
}

}  // namespace frugal::ops
