#pragma once

#include <vector>

#include "chain/step.h"

namespace frugal::quantize {

// Quantization, after training and in it: one row per method, each defined in the file of its name.
const std::vector<chain::StepRow>& quantize_rows();

}  // namespace frugal::quantize
