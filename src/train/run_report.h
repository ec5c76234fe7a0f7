// Runs side by side: a table and curves, as text and as a page.
#pragma once

#include <string>
#include <vector>

#include "train/run_history.h"

namespace frugal::train {

// Markdown, aligned for a terminal; what no run has is left out.
std::string runs_table(const std::vector<RunHistory>& runs);

// Every figure as a chart of `width` characters, all runs in it.
std::string runs_charts(const std::vector<RunHistory>& runs, size_t width);

// One page that needs no network and no other file: the table, the curves, their values under the pointer; light, dark, printed and narrow.
std::string runs_page(const std::vector<RunHistory>& runs);

}  // namespace frugal::train
