// The norm of all gradients together, and clipping by it.
#pragma once

#include <span>
#include <vector>

#include "train/parameter.h"

namespace frugal::train {

// Sum of the squares of all numbers, in double. It does not depend on the number of threads: blocks of fixed size are summed by
// themselves, then their sums in order. Tensors are contiguous float32 on the CPU.
double sum_of_squares(std::span<const at::Tensor> tensors);

// Of all gradients that there are: the Euclidean norm, which is not finite exactly if one of their numbers is not.
double gradient_norm(const std::vector<Parameter>& parameters);

// As torch.nn.utils.clip_grad_norm_: gradients times min(1, max_norm / (norm + 1e-6)); gives the norm before. Where that is not
// finite the gradients are left as they are: the caller asks std::isfinite.
double clip_gradients(const std::vector<Parameter>& parameters, double max_norm);

}  // namespace frugal::train
