#pragma once

#include "chain/step.h"

namespace frugal::prune {

chain::StepRow magnitude_row();

}  // namespace frugal::prune
