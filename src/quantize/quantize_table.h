#pragma once

#include <vector>

#include "chain/step.h"

namespace frugal::quantize {

// Post-training quantization: one row per method, each defined in the file of its name.
const std::vector<chain::StepRow>& quantize_rows();

}  // namespace frugal::quantize
