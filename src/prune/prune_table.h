#pragma once

#include <vector>

#include "chain/step.h"

namespace frugal::prune {

// Pruning, unstructured, N:M and structured: one row per method, each defined in the file of its name.
const std::vector<chain::StepRow>& prune_rows();

}  // namespace frugal::prune
