#pragma once

#include "chain/step.h"

namespace frugal::train {

chain::StepRow recover_row();

}  // namespace frugal::train
