#pragma once

#include <vector>

#include "chain/step.h"

namespace frugal::lowrank {

// Low-rank approximation: one row per method, each defined in the file of its name.
const std::vector<chain::StepRow>& lowrank_rows();

}  // namespace frugal::lowrank
