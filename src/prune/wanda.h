#pragma once

#include "chain/step.h"
#include "prune/pattern.h"

namespace frugal::prune {

// weight [out, in]; norm [in]: l2 norm of each input channel over the calibration tokens; kept: an earlier mask or undefined.
// Returns the mask, bool [out, in].
Tensor wanda(const Tensor& weight, const Tensor& norm, const Tensor& kept, const Pattern& pattern);

chain::StepRow wanda_row();

}  // namespace frugal::prune
