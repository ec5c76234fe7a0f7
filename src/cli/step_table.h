// The one step table: cli/ joins the rows of the methods folders and injects it.
#pragma once

#include "chain/step.h"

namespace frugal::cli {

chain::StepTable joined_step_table();

}  // namespace frugal::cli
