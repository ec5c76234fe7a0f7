#include "train/grad_scaler.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <limits>

namespace frugal::train {

bool GradScaler::unscale(const std::vector<Parameter>& parameters) const {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> gradients;
  for (const Parameter& parameter : parameters) {
    if (parameter.tensor.grad().defined()) gradients.push_back(parameter.tensor.grad());
  }
  at::Tensor found = at::zeros({}, at::kFloat);
  at::_amp_foreach_non_finite_check_and_unscale_(gradients, found, at::scalar_tensor(1 / scale_, at::kFloat));
  return found.item<float>() == 0;
}

void GradScaler::update(bool finite) {
  if (!finite) {
    scale_ *= kBackoffFactor;
    growth_tracker_ = 0;
  } else if (++growth_tracker_ == kGrowthInterval) {
    if (const double grown = scale_ * kGrowthFactor; static_cast<float>(grown) <= std::numeric_limits<float>::max()) scale_ = grown;  // torch's is a float32
    growth_tracker_ = 0;
  }
}

Json GradScaler::state() const { return {{"scale", scale_}, {"_growth_tracker", growth_tracker_}}; }

void GradScaler::load(const JsonObject& state) {
  scale_ = state.number("scale", std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::max());
  growth_tracker_ = state.integer("_growth_tracker", 0, kGrowthInterval - 1);
}

}  // namespace frugal::train
