#pragma once

#include "chain/step.h"

namespace frugal::quantize {

chain::StepRow rtn_row();

}  // namespace frugal::quantize
