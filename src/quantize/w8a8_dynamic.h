#pragma once

#include "chain/step.h"

namespace frugal::quantize {

chain::StepRow w8a8_dynamic_row();

}  // namespace frugal::quantize
