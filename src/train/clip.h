// The norm of all gradients together, and clipping by it.
#pragma once

#include <vector>

#include "train/parameter.h"

namespace frugal::train {

// Of all gradients that there are: the Euclidean norm, which is not finite exactly if one of their numbers is not. It does not depend
// on the number of threads.
double gradient_norm(const std::vector<Parameter>& parameters);

// As torch.nn.utils.clip_grad_norm_: gradients times min(1, max_norm / (norm + 1e-6)); gives the norm before. Where that is not
// finite the gradients are left as they are: the caller asks std::isfinite.
double clip_gradients(const std::vector<Parameter>& parameters, double max_norm);
// The same where the norm is known.
void clip_gradients(const std::vector<Parameter>& parameters, double norm, double max_norm);

}  // namespace frugal::train
