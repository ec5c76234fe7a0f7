#pragma once

#include "tune/adapter.h"

namespace frugal::tune {

AdapterRow loftq_row();

}  // namespace frugal::tune
