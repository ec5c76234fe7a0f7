// The rows of the growth table, each in the file of its name.
#pragma once

#include "train/growth.h"

namespace frugal::train {

GrowthRow stacking_row();
GrowthRow staged_row();
GrowthRow lemon_row();

}  // namespace frugal::train
