#pragma once

#include "tune/adapter.h"

namespace frugal::tune {

AdapterRow prefix_tuning_row();

}  // namespace frugal::tune
