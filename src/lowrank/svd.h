#pragma once

#include "lowrank/factors.h"

namespace frugal::lowrank {

// The best rank-`rank` approximation of weight [out, in] in the Frobenius norm (Eckart and Young, 1936).
Factors truncated_svd(const Tensor& weight, int64_t rank);

chain::StepRow svd_row();

}  // namespace frugal::lowrank
