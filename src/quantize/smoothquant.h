#pragma once

#include <vector>

#include "chain/step.h"

namespace frugal::quantize {

using at::Tensor;

// abs_max [in] of the activations, weights [out_i, in] that read them. Returns the scale [in], > 0, that divides activations
// and multiplies columns.
Tensor smoothing_scale(const Tensor& abs_max, const std::vector<Tensor>& weights, double alpha);

chain::StepRow smoothquant_row();

}  // namespace frugal::quantize
