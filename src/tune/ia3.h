#pragma once

#include "tune/adapter.h"

namespace frugal::tune {

AdapterRow ia3_row();

}  // namespace frugal::tune
