// Gradients that are used as soon as backward has them, so that hardly more than one lives: what LOMO (lomo.cpp) moves by. Two live longer: the head's, which
// the fused loss makes before backward begins (train/cross_entropy.h), and with it a tied embedding's.
#pragma once

#include <functional>
#include <vector>

#include "train/optimizer.h"

namespace frugal::train {

struct TrainerOptions;

// Throws Error{unsupported} that names the option for what a run by such an optimizer cannot do.
void require_fused_backward(const TrainerOptions& options, bool several_ranks);

class FusedBackward {
 public:
  // Both are referred to; the optimizer was made of these parameters.
  FusedBackward(const std::vector<Parameter>& parameters, Optimizer& optimizer) : parameters_(parameters), optimizer_(optimizer) {}

  // The norm of all gradients of a backward pass, none of which is kept.
  double norm_of(const std::function<void()>& backward);
  // Each parameter moves by `factor` times its gradient. Gives their norm, without the factor; where that is not finite, no parameter has moved.
  // Throws Error{invalid_input} where some had moved before a gradient came that is not finite, or for a `loss` that is not.
  double step(const std::function<double()>& backward, double learning_rate, double factor);

 private:
  // take(parameter, the sum of squares of its gradient)
  double for_each_gradient(const std::function<void()>& backward, const std::function<void(size_t, double)>& take);

  const std::vector<Parameter>& parameters_;
  Optimizer& optimizer_;
};

}  // namespace frugal::train
