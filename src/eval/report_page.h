// What every page of ours has in common.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace frugal::eval {

// CSS of a page, its tables and the plots in it, light, dark and printed.
std::string page_style();

// The parts of the template between its {{names}}, with the values put in; values are never searched for names.
std::string filled_page(std::string_view page, const std::vector<std::pair<std::string_view, std::string>>& values);

}  // namespace frugal::eval
