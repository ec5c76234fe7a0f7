// The step of AdamW on one tensor, for the optimizers that use it for a part of their parameters too.
#pragma once

#include "base/options.h"
#include "train/per_parameter.h"

namespace frugal::train {

struct AdamSettings {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  static AdamSettings of(const Options& options);  // of the four options by these names
};

struct AdamState {
  at::Tensor step, exp_avg, exp_avg_sq;
  AdamState() = default;  // none
  explicit AdamState(at::IntArrayRef shape) : step(zeros({})), exp_avg(zeros(shape)), exp_avg_sq(zeros(shape)) {}
  StateTensors tensors() { return {{"step", &step}, {"exp_avg", &exp_avg}, {"exp_avg_sq", &exp_avg_sq}}; }
};

// weights <- (1 - rate decay) weights - rate m^ / (sqrt(v^) + eps); all three tensors contiguous, of one shape.
void adamw_update(const at::Tensor& weights, const at::Tensor& gradient, AdamState& state, const AdamSettings& settings, double learning_rate);

}  // namespace frugal::train
