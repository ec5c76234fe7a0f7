#pragma once

#include "tune/adapter.h"

namespace frugal::tune {

AdapterRow qa_lora_row();

}  // namespace frugal::tune
