#pragma once

#include <functional>
#include <vector>

#include "chain/grid.h"
#include "chain/step.h"

namespace frugal::quantize {

using at::Tensor;

struct WeightPart {
  Tensor weight;  // [out, in]
  Tensor kept;    // bool, or undefined
};

// Output of the module that reads an input, with these weights in place of its first Linears'.
using ModuleOutput = std::function<Tensor(const std::vector<Tensor>& weights)>;

struct AwqScale {
  Tensor scale;  // [in] > 0
  double alpha = 0;
  std::vector<double> losses;  // mean squared error of the module's output, for each alpha of the grid
};

// s = abs_mean^alpha, normalised to sqrt(max s min s) = 1, for the alpha of {0, 1/grid, ..., (grid-1)/grid} whose weights
// Q(W s) / s change the module's output least. The parts share the input; abs_mean [in].
AwqScale search_scale(const std::vector<WeightPart>& parts, const Tensor& abs_mean, const chain::GridSpec& spec, int grid, const ModuleOutput& output);

// Each group of `weight` [out, in] cut to the share 1, 0.95 ... 0.55 of its largest magnitude for which the rounded group
// changes its own part of the output on `sample` [rows, in] least. `kept` may be undefined.
Tensor clip_ranges(const Tensor& weight, const Tensor& kept, const Tensor& sample, const chain::GridSpec& spec);

chain::StepRow awq_row();

}  // namespace frugal::quantize
