#pragma once

#include "tune/adapter.h"

namespace frugal::tune {

AdapterRow lora_fa_row();

}  // namespace frugal::tune
