#pragma once

#include "formats/grouped.h"
#include "quantize/trained_quantization.h"

namespace frugal::quantize {

// {-1, 0, 1} times the mean magnitude of `weight` [out, in], nearest to it; the gradient passes straight through.
at::Tensor ternary_weight(const at::Tensor& weight);
// Such numbers as codes of 2 bits: 1, 2, 3.
formats::GroupedWeight ternary_codes(const at::Tensor& ternary);

TrainedQuantizationRow bitnet_b158_row();

}  // namespace frugal::quantize
