#pragma once

#include <limits>

#include "chain/column_sweep.h"
#include "chain/grid.h"
#include "chain/step.h"

namespace frugal::quantize {

using at::Tensor;

struct SpqrOptions {
  int bits = 3;
  int64_t group = 16;  // input columns that share a scale and a zero point
  // An outlier costs more than this many times the mean cost of a weight's being zero. Infinite: there are no outliers.
  double threshold = std::numeric_limits<double>::infinity();
  int statistics_bits = 3;        // of the second grid, on which scales and zero points lie; 0: there is none
  int64_t statistics_group = 16;  // rows that share a second grid
  bool integer_zeros = false;     // zero points are codes; only scales have a second grid
};

struct SpqrResult {
  chain::GridCodes codes;
  Tensor outliers;  // float32 [out, in], exact in float16: what is added to the codes; 0 elsewhere
  Tensor chosen;    // bool [out, in]: the outliers
};

// weight [out, in] float32 or float64 (then `feedback` too: all arithmetic runs in it), kept bool [out, in] or undefined:
// dropped entries stay zero and are no outliers; their codes are to be ignored.
SpqrResult spqr(const Tensor& weight, const Tensor& kept, const chain::ErrorFeedback& feedback, const SpqrOptions& options);

chain::StepRow spqr_row();

}  // namespace frugal::quantize
