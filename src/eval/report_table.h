// The table of a report as data: one list of columns for the page and for the terminal.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "eval/report_data.h"

namespace frugal::eval {

struct Cell {
  std::string text;  // not escaped; "" when unknown
  double sort = 0;   // numeric columns
};

struct Column {
  std::string title;
  std::string help;
  bool numeric = true;
  bool in_terminal = true;  // the terminal's table has less room
  std::function<Cell(const Point&)> cell;
};

// The columns that have a value in some row of the group.
std::vector<Column> columns_of(const Report& report, const TextGroup& group);

// "A", "B", ... for the machines of a group, in the order of its list.
std::string machine_letter(const TextGroup& group, const chain::LedgerRow& row);

}  // namespace frugal::eval
