// A method as it is typed, "id:key=value,...", found in its table.
#pragma once

#include <string>

#include "base/method_table.h"

namespace frugal {

template <typename T>
struct MethodChoice {
  const MethodRow<T>* row;
  Options options;
};

// Throws Error{invalid_input} for an id or an option that is not there, with the nearest one, and for values out of range.
template <typename T>
MethodChoice<T> choose_method(const MethodTable<T>& table, const std::string& text) {
  const StepText step = parse_step(text);
  const MethodRow<T>& row = table.at(step.id);
  return {&row, Options(row.id, row.options, step.options)};
}

// "a, b, c", for help.
template <typename T>
std::string ids_of(const MethodTable<T>& table) {
  std::string ids;
  for (const MethodRow<T>& row : table.rows()) ids += (ids.empty() ? "" : ", ") + row.id;
  return ids;
}

}  // namespace frugal
