// Functions behind the tables of filters, tests and methods, grouped by what they work on.
#pragma once

#include <optional>
#include <string>

#include "text/template_render.h"

namespace frugal::text::jinja {

// Number of elements or code points; throws for what has no length.
int64_t length_of(Render& r, const Value& value);
// Python's int(text, base) and float(text); nullopt when they would raise.
std::optional<Integer> parse_python_integer(std::string_view text, int base);
std::optional<double> parse_python_float(std::string_view text);
// The value at "a.b.0" of an item; `fallback` (may be null) replaces undefined on the way.
Value value_at(Render& r, const Value& item, const Value& path, const Value* fallback);

namespace filters {

// clang-format off
#define FRUGAL_FILTERS(X)                                                                                              \
  X(capitalize) X(center) X(escape) X(filesizeformat) X(format) X(indent) X(lower) X(replace) X(string) X(striptags)   \
  X(title) X(trim) X(truncate) X(upper) X(urlencode) X(wordcount) X(tojson) X(abs) X(to_float) X(to_int) X(round)      \
  X(attr) X(batch) X(fallback) X(dictsort) X(first) X(groupby) X(items) X(join) X(last) X(length) X(list) X(map)       \
  X(max) X(min) X(reject) X(rejectattr) X(reverse) X(select) X(selectattr) X(slice) X(sort) X(sum) X(unique)
// clang-format on
#define FRUGAL_DECLARE_FILTER(name) Value name(Render& r, const Value& value, const Arguments& arguments);
FRUGAL_FILTERS(FRUGAL_DECLARE_FILTER)
#undef FRUGAL_DECLARE_FILTER
#undef FRUGAL_FILTERS

}  // namespace filters
}  // namespace frugal::text::jinja
