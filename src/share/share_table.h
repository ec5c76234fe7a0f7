// Architectures whose blocks share weights from the first step on: `frugal train --method`.
#pragma once

#include "base/method_table.h"

namespace frugal::share {

struct SharedArchitecture {
  const char* sharing = nullptr;  // what train::shape_options() calls it
};

using ShareRow = MethodRow<SharedArchitecture>;
const MethodTable<SharedArchitecture>& share_table();

ShareRow mobilellm_ls_row();
ShareRow mobillama_row();

}  // namespace frugal::share
