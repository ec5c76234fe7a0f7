#include "kernels/cpu/norm.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "base/error.h"
#include "base/team.h"
#include "ops/autocast.h"
#include "ops/into.h"

namespace frugal::ops {
namespace {

using torch::autograd::AutogradContext;

Tensor normed(const Tensor& x, const Tensor& weight, double eps, double weight_offset) {
  const Tensor input = checked_float(x.to(at::kFloat), "rms_norm input");
  Tensor out = at::empty_like(input);
  rms_norm_into(input, weight, eps, weight_offset, out);
  return out.to(activation_type(x));
}

class RmsNorm : public torch::autograd::Function<RmsNorm> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight, double eps, double weight_offset) {
    const at::ScalarType type = activation_type(x);
    Tensor kept = x.contiguous(), scale;
    // The residual stream of some models goes beyond the range of float16: each row in units of its largest number.
    if (type == at::kHalf && x.scalar_type() == at::kFloat) {
      scale = kept.abs().amax(-1, /*keepdim=*/true).clamp_min(1e-30);
      kept = kept / scale;
    }
    context->save_for_backward({kept.to(type), weight, scale});
    context->saved_data["input_type"] = x.scalar_type();
    context->saved_data["eps"] = eps;
    context->saved_data["offset"] = weight_offset;
    return normed(x, weight, eps, weight_offset);
  }
  static torch::autograd::variable_list backward(AutogradContext* context, torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const Tensor kept = saved[0].to(at::kFloat), x = saved[2].defined() ? kept * saved[2] : kept, weight = checked_float(saved[1], "rms_norm weight");
    const Tensor gradient = checked_float(gradients[0].to(at::kFloat), "rms_norm gradient");
    Tensor by_x = at::empty_like(x), by_weight = context->needs_input_grad(1) ? at::zeros_like(weight) : Tensor();
    kernels::rms_norm_backward(
        {.x = x.const_data_ptr<float>(),
         .gradient = gradient.const_data_ptr<float>(),
         .x_gradient = by_x.mutable_data_ptr<float>(),
         .weight_gradient = by_weight.defined() ? by_weight.mutable_data_ptr<float>() : nullptr,
         .rows = x.numel() / weight.size(0),
         .columns = weight.size(0)},
        weight.const_data_ptr<float>(),
        {.eps = static_cast<float>(context->saved_data["eps"].toDouble()), .weight_offset = static_cast<float>(context->saved_data["offset"].toDouble())});
    return {by_x.to(context->saved_data["input_type"].toScalarType()), by_weight, Tensor(), Tensor()};
  }
};

}  // namespace

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
  return wants_gradient({x, weight}) ? RmsNorm::apply(x, weight, eps, weight_offset) : normed(x, weight, eps, weight_offset);
}

void for_each_rows(int64_t rows, int64_t values, const RowWork& work) {
  parallel_for(rows, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, values)), [&](int64_t begin, int64_t end) { work({begin, end}); });
}

void rms_norm_into(const Tensor& x, const Tensor& weight, double eps, double weight_offset, Tensor& out, RowRange range) {
  const Tensor input = checked_float(x, "rms_norm input"), scale = checked_float(weight, "rms_norm weight");
  FRUGAL_ASSERT(scale.dim() == 1 && input.size(-1) == scale.size(0) && out.numel() == input.numel());
  range.end = std::min(range.end, input.size(0));
  if (input.numel() == 0) return;
  const int64_t width = input.numel() / input.size(0);
  kernels::rms_norm({.x = input.const_data_ptr<float>() + range.begin * width,
                     .out = out.mutable_data_ptr<float>() + range.begin * width,
                     .rows = (range.end - range.begin) * width / scale.size(0),
                     .columns = scale.size(0)},
                    scale.const_data_ptr<float>(), {.eps = static_cast<float>(eps), .weight_offset = static_cast<float>(weight_offset)});
}

void add_in_place(Tensor& target, const Tensor& x, RowRange range) {
  FRUGAL_ASSERT(target.dim() > 0 && target.sizes() == x.sizes() && target.is_contiguous() && x.is_contiguous());
  float* to = target.mutable_data_ptr<float>();
  const float* from = x.const_data_ptr<float>();
  const int64_t rows = target.size(0), width = rows == 0 ? 0 : target.numel() / rows;
  range.end = std::min(range.end, rows);
  parallel_for((range.end - range.begin) * width, 16384, [&](int64_t begin, int64_t end) {
    for (int64_t i = range.begin * width + begin; i < range.begin * width + end; ++i) to[i] += from[i];
  });
}

}  // namespace frugal::ops
