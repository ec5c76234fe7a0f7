#pragma once

#include "tune/adapter.h"

namespace frugal::tune {

AdapterRow adalora_row();

}  // namespace frugal::tune
