#pragma once

#include "tune/adapter.h"

namespace frugal::tune {

AdapterRow vera_row();

}  // namespace frugal::tune
