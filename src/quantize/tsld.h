#pragma once

#include "chain/step.h"
#include "formats/grouped.h"

namespace frugal::quantize {

// Ternary weight networks: of `weight` [out, in], in groups of so many columns (0: the row), each number's sign times the group's scale, or 0.
at::Tensor twn_weight(const at::Tensor& weight, int64_t group);
// The same as codes of 2 bits: 1, 2, 3.
formats::GroupedWeight twn_codes(const at::Tensor& weight, int64_t group);

chain::StepRow tsld_row();

}  // namespace frugal::quantize
