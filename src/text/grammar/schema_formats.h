// The formats of JSON Schema that a regular expression describes exactly.
#pragma once

#include <string>
#include <string_view>

namespace frugal::text::grammar {

// The expression, or "" for a format that is not known here.
std::string_view pattern_of_format(std::string_view name);
std::string names_of_formats();

}  // namespace frugal::text::grammar
