#pragma once

#include "tune/adapter.h"

namespace frugal::tune {

AdapterRow dora_row();

}  // namespace frugal::tune
