#include "nn/round_activation.h"

#include <ATen/ATen.h>

#include "ops/ops.h"

namespace frugal::nn {

using at::Tensor;
using formats::ActivationQuant;

Tensor round_activation(const Tensor& x, const ActivationQuant& quant) {
  if (quant.kind == ActivationQuant::Kind::none) return x;
  const double limit = (1 << (quant.bits - 1)) - 1;
  const Tensor detached = x.detach().to(at::kFloat);
  const Tensor scale =
      quant.kind == ActivationQuant::Kind::per_tensor ? at::full({1, 1}, quant.scale) : (detached.abs().amax(-1, /*keepdim=*/true) / limit).clamp_min(1e-30);
  const Tensor rounded = at::round(detached / scale).clamp(-limit, limit) * scale;
  return ops::wants_gradient({x}) ? rounded + (x - detached) : rounded;  // exactly the rounded value
}

}  // namespace frugal::nn
