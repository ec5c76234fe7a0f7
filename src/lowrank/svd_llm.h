#pragma once

#include "lowrank/factors.h"

namespace frugal::lowrank {

// Full-rank factors of weight [out, in] in the order in which dropping them costs least: dropping the components k, k+1, ...
// changes the output on the calibration tokens by sqrt(tokens * sum of their squared singular values). float64.
// hessian [in, in] = X^T X / tokens; `damping` times its mean diagonal is added where it is not positive definite.
Factors svd_llm(const Tensor& weight, const Tensor& hessian, double damping);

// `second` for which second * first meets the original outputs best on inputs that differ from the original ones:
// min |targets - inputs first^T second^T|, with a ridge towards the present `second` (share `damping` of the mean energy).
// targets [rows, out], inputs [rows, in].
Tensor updated_second(const Factors& factors, const Tensor& targets, const Tensor& inputs, double damping);

chain::StepRow svd_llm_row();

}  // namespace frugal::lowrank
