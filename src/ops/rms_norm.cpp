#include "kernels/cpu/norm.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "ops/ops.h"

namespace frugal::ops {

bool wants_gradient(std::initializer_list<Tensor> tensors) {
  if (!at::GradMode::is_enabled()) return false;
  for (const Tensor& tensor : tensors) {
    if (tensor.defined() && tensor.requires_grad()) return true;
  }
  return false;
}

Tensor checked_float(const Tensor& tensor, const char* what) {
  if (tensor.scalar_type() != at::kFloat || !tensor.device().is_cpu()) {
    fail(ErrorKind::internal, "{} must be float32 on the CPU, is {} on {}", what, at::toString(tensor.scalar_type()), tensor.device().str());
  }
  return tensor.contiguous();
}

Tensor rms_norm_reference(const Tensor& x, const Tensor& weight, double eps, double weight_offset) {
  const Tensor normed = x * at::rsqrt(x.square().mean(-1, /*keepdim=*/true) + eps);
  return normed * (weight_offset == 0 ? weight : weight + weight_offset);
}

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps, double weight_offset) {
  if (wants_gradient({x, weight})) return rms_norm_reference(x, weight, eps, weight_offset);
  const Tensor input = checked_float(x, "rms_norm input");
  const Tensor scale = checked_float(weight, "rms_norm weight");
  FRUGAL_ASSERT(scale.dim() == 1 && input.size(-1) == scale.size(0));
  Tensor out = at::empty_like(input);
  kernels::rms_norm({.x = input.const_data_ptr<float>(),
                     .out = out.mutable_data_ptr<float>(),
                     .rows = scale.numel() == 0 ? 0 : input.numel() / scale.size(0),
                     .columns = scale.size(0)},
                    scale.const_data_ptr<float>(), {.eps = static_cast<float>(eps), .weight_offset = static_cast<float>(weight_offset)});
  return out;
}

}  // namespace frugal::ops
