#include "train/trained_kind.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "ops/packed_linear.h"

namespace frugal::train {

using at::Tensor;

Tensor straight_through(const Tensor& value, const Tensor& of) { return value.detach() + (of - of.detach()); }

Tensor TrainedKind::forward(const nn::Activation& input) const {
  const Tensor x = form_.input ? form_.input(input.values()) : input.values();
  const Tensor y = ops::float_linear(x, form_.weight(), /*invariant=*/false);
  return form_.output ? form_.output(y) : y;
}

Tensor TrainedKind::dense() const {
  const at::NoGradGuard no_grad;
  return form_.weight();
}

}  // namespace frugal::train
