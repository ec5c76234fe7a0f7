#pragma once

#include <vector>

#include "lowrank/factors.h"

namespace frugal::lowrank {

// Full-rank factors of weight [out, in] in the order of the singular values of W diag(abs_mean^alpha); float64.
Factors asvd(const Tensor& weight, const Tensor& abs_mean, double alpha);

// What each component of `factors` adds to the output's mean squared norm, [r] float64: dropping some adds theirs up, because
// columns of `second` are orthogonal. hessian [in, in] = X^T X / tokens.
Tensor component_energy(const Factors& factors, const Tensor& hessian);

// A matrix and what it costs to cut it: error[i] when it keeps the share ratios[i] of its parameters; 0 when left dense.
struct Candidate {
  int64_t parameters = 0;
  std::vector<double> error;
};

// For each candidate an index into ratios (ascending), or ratios.size(): left dense; together at most `budget` parameters (or
// the lowest ratio for all). Greedy by error saved per parameter.
std::vector<size_t> allocate(const std::vector<Candidate>& candidates, const std::vector<double>& ratios, double budget);

chain::StepRow asvd_row();

}  // namespace frugal::lowrank
