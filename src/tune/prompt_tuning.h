#pragma once

#include "tune/adapter.h"

namespace frugal::tune {

AdapterRow prompt_tuning_row();

}  // namespace frugal::tune
