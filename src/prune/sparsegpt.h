#pragma once

#include <optional>

#include "chain/column_sweep.h"
#include "chain/grid.h"
#include "chain/step.h"
#include "prune/pattern.h"

namespace frugal::prune {

struct SparseGptOptions {
  Pattern pattern;
  int64_t block = 128;                  // columns whose mask is chosen together
  std::optional<chain::GridSpec> grid;  // kept weights are rounded to it in the same sweep
};

struct SparseGptResult {
  Tensor values;                          // [out, in] of weight's type: dropped entries are 0
  Tensor kept;                            // bool [out, in]
  std::optional<chain::GridCodes> codes;  // with a grid
};

// weight [out, in] float32 or float64, feedback of the same type (chain/column_sweep.h), `dead` bool [in]: inputs that were
// always zero, whose weights are dropped first; kept: an earlier mask, or undefined: what it dropped stays dropped.
SparseGptResult sparsegpt(const Tensor& weight, const Tensor& kept, const chain::ErrorFeedback& feedback, const Tensor& dead, const SparseGptOptions& options);

chain::StepRow sparsegpt_row();

}  // namespace frugal::prune
