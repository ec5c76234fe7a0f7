#include "train/fused_backward.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <array>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "train/gradient_hooks.h"
#include "train/per_parameter.h"
#include "train/sums.h"
#include "train/trainer.h"

namespace frugal::train {

void require_fused_backward(const TrainerOptions& options, bool several_ranks) {
  const auto refuse = [](bool when, const char* option, const char* why) {
    if (when) fail(ErrorKind::unsupported, "{}: the optimizer moves each parameter while backward goes on, {}", option, why);
  };
  refuse(several_ranks, "strategy", "before gradients of other processes are there: one process");
  refuse(options.gradient_accumulation_steps > 1, "gradient_accumulation_steps", "so gradients of several micro-batches cannot be summed: 1");
  refuse(options.hook != nullptr, "method", "and this adapter looks at all gradients of a step: another adapter or optimizer");
  const bool blind = options.max_grad_norm == 0;
  refuse(options.scale_loss && blind, "fp16", "so a gradient that overflows is known too late without a pass that takes their norm: max_grad_norm above 0");
  refuse(options.spikes == SpikePolicy::skip && blind, "spike_policy", "so a loss is known too late without a pass that takes the norm: max_grad_norm above 0");
}

double FusedBackward::for_each_gradient(const std::function<void()>& backward, const std::function<void(size_t, double)>& take) {
  double sum = 0;
  std::vector<char> was_there(parameters_.size());
  const auto use = [&](size_t i) {
    const at::NoGradGuard no_grad;
    // It was computed with a weight that may have moved since.
    if (std::exchange(was_there[i], 1)) {
      fail(ErrorKind::unsupported,
           "{} gets more than one gradient in a backward pass, and would have moved after the first: choose another optimizer than one that steps in backward",
           parameters_[i].name);
    }
    const double squares = sum_of_squares(std::array{gradient_of(parameters_[i])});
    sum += squares;
    take(i, squares);
    parameters_[i].tensor.mutable_grad() = at::Tensor();
  };
  {
    const GradientHooks hooks(parameters_, use);
    backward();
  }
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (parameters_[i].tensor.grad().defined()) use(i);  // which was made without backward
  }
  return std::sqrt(sum);
}

double FusedBackward::norm_of(const std::function<void()>& backward) {
  return for_each_gradient(backward, [](size_t, double) {});
}

double FusedBackward::step(const std::function<double()>& backward, double learning_rate, double factor) {
  size_t moved = 0;
  bool finite = true;
  double loss = 0;
  const double norm = for_each_gradient([&] { loss = backward(); },
                                        [&](size_t i, double squares) {
                                          finite = finite && std::isfinite(squares);
                                          if (!finite) return;
                                          if (factor != 1) parameters_[i].tensor.mutable_grad().mul_(factor);
                                          optimizer_.step_of(i, learning_rate);
                                          ++moved;
                                        });
  if (moved > 0 && !(finite && std::isfinite(loss))) {
    fail(ErrorKind::invalid_input,
         "the loss ({}) or a gradient (norm {}) is not finite, which was known only when {} of {} parameters had moved: the run ends, --resume goes on from "
         "its newest "
         "checkpoint; with max_grad_norm above 0 a pass before tells, and such a step is left out",
         loss, norm, moved, parameters_.size());
  }
  return norm;
}

}  // namespace frugal::train
