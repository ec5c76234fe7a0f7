// What an optimizer moves: one tensor of the model or of what is attached to it.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace frugal::train {

struct Parameter {
  std::string name;                // as the checkpoint names the tensor: the key of its state in a checkpoint
  at::Tensor tensor;               // a leaf that requires a gradient, float32
  double learning_rate_scale = 1;  // times the schedule's rate (LoRA+, muP)
  bool decays = true;              // weight decay applies: matrices, not norms and biases
};

}  // namespace frugal::train
