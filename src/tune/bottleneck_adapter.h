#pragma once

#include "tune/adapter.h"

namespace frugal::tune {

AdapterRow bottleneck_adapter_row();

}  // namespace frugal::tune
