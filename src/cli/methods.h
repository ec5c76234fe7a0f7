// The rows of all method tables, side by side.
#pragma once

#include <string>

#include "base/method_table.h"
#include "cli/context.h"

namespace frugal::cli {

// In the place of the function is what is typed before the id: "compress --step".
using Method = MethodRow<std::string>;
using Methods = MethodTable<std::string>;

Methods all_methods(const Context& context);

}  // namespace frugal::cli
