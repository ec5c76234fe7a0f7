#pragma once

#include "chain/grid.h"
#include "chain/step.h"

namespace frugal::quantize {

using at::Tensor;

struct HqqOptions {
  int bits = 4;
  int64_t group = 64;
  double norm = 0.7;  // p of the error's l_p norm, 0 < p <= 1
  double beta = 10;   // weight of the half-quadratic penalty, times `kappa` each iteration
  double kappa = 1.01;
  int iterations = 20;  // at most; a group stops when its mean absolute error stops falling
};

// weight [out, in] float32, kept bool [out, in] or undefined. Zeros of the result are floats, exact in float16.
chain::GridCodes hqq(const Tensor& weight, const Tensor& kept, const HqqOptions& options);

chain::StepRow hqq_row();

}  // namespace frugal::quantize
