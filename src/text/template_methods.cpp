// The methods of Python's str, list, tuple and dict that the immutable sandbox leaves to a template, and the globals.
#include <algorithm>
#include <array>
#include <utility>

#include "text/template_filters.h"
#include "text/template_text.h"

namespace frugal::text::jinja {
namespace {

using Row = std::pair<std::string_view, NativeFunction>;

Value no_arguments(Render& r, const Arguments& arguments, std::string_view name, Text result) {
  const Bound bound(arguments, name, {});
  return make_string(r, std::move(result));
}

template <Side side>
Value strip_method(Render& r, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "strip", {"chars"});
  const std::string* chars = bound.bytes_or_none(0);
  if (chars) r.budget.step(self.text().size() * chars->size() / 4096);
  return make_string(r, strip(self.text(), chars, side));
}

Value string_list(Render& r, std::vector<Text> texts, ListKind kind = ListKind::list) {
  std::vector<Value> values;
  for (Text& text : texts) values.push_back(make_string(r, std::move(text)));
  return make_list(r, std::move(values), kind);
}

template <bool from_right>
Value split_method(Render& r, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "split", {"sep", "maxsplit"});
  const std::string* separator = bound.bytes_or_none(0);
  const int64_t limit = bound.integer(1, -1);
  return string_list(r, from_right ? split_right(r, self.text(), separator, limit) : split(r, self.text(), separator, limit));
}

Value split_lines_method(Render& r, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "splitlines", {"keepends"});
  return string_list(r, split_lines(r, self.text(), bound.flag(0, false)));
}

template <bool from_right>
Value partition_method(Render& r, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "partition", {"sep"});
  const Text& text = self.text();
  const Text& separator = bound.text(0);
  if (separator.size() == 0) template_error("empty separator");
  r.budget.step(text.size() * (from_right ? separator.size() : 1) / 4096);
  const size_t at = from_right ? text.bytes.rfind(separator.bytes) : find_bytes(text.bytes, separator.bytes);
  if (at == std::string::npos) {
    return string_list(r, from_right ? std::vector<Text>{{}, {}, text} : std::vector<Text>{text, {}, {}}, ListKind::tuple);
  }
  return string_list(r, {text.slice(0, at), separator, text.slice(at + separator.size(), text.size())}, ListKind::tuple);
}

// The part of the text that optional arguments start and end (code points, as a slice) select.
struct Window {
  size_t begin, end;
  bool valid;  // false: start is beyond the end, where not even an empty text is found
};
Window window_of(Render& r, const Text& text, const Bound& bound) {
  const auto size = static_cast<int64_t>(count_code_points(text.bytes));
  r.budget.step(text.size() / 4096);
  const auto at = [&](size_t i, int64_t fallback) {
    if (!bound[i] || bound[i]->is_none()) return fallback;
    const int64_t index = bound.integer(i, fallback);
    return std::max<int64_t>(index < 0 ? index + size : index, 0);
  };
  const int64_t begin = at(1, 0), end = std::min(at(2, size), size);
  if (begin > end) return {0, 0, false};
  return {offset_of_code_point(text.bytes, static_cast<size_t>(begin)), offset_of_code_point(text.bytes, static_cast<size_t>(end)), true};
}

template <bool at_end>
Value starts_method(Render& r, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, at_end ? "endswith" : "startswith", {"prefix", "start", "end"});
  const Window window = window_of(r, self.text(), bound);
  const std::string_view text = std::string_view(self.text().bytes).substr(window.begin, window.end - window.begin);
  std::vector<Value> candidates{bound.required(0)};
  if (const ListData* list = candidates[0].list(); list && list->kind == ListKind::tuple) candidates = list->items;
  for (const Value& candidate : candidates) {
    if (!candidate.string()) template_error("a prefix must be a string or a tuple of strings, not '{}'", type_name(candidate));
    r.budget.step();
    const std::string& what = candidate.text().bytes;
    if (window.valid && (at_end ? text.ends_with(what) : text.starts_with(what))) return true;
  }
  return false;
}

template <bool from_right, bool must_find>
Value find_method_of(Render& r, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "find", {"sub", "start", "end"});
  const std::string& what = bound.text(0).bytes;
  const Window window = window_of(r, self.text(), bound);
  const std::string_view text = std::string_view(self.text().bytes).substr(0, window.end);
  size_t at = std::string::npos;
  if (window.valid && from_right) {
    r.budget.step(text.size() * what.size() / 4096);
    at = text.rfind(what);
    if (at != std::string::npos && at < window.begin) at = std::string::npos;
  } else if (window.valid) {
    at = find_bytes(text, what, window.begin);
  }
  if (at == std::string::npos && must_find) template_error("substring not found");
  return at == std::string::npos ? make_integer(-1) : make_integer(static_cast<int64_t>(count_code_points(text.substr(0, at))));
}

Value count_method(Render& r, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "count", {"sub", "start", "end"});
  const std::string& what = bound.text(0).bytes;
  const Window window = window_of(r, self.text(), bound);
  if (!window.valid) return make_integer(0);
  const std::string_view text = std::string_view(self.text().bytes).substr(window.begin, window.end - window.begin);
  if (what.empty()) return make_integer(static_cast<int64_t>(count_code_points(text)) + 1);
  int64_t count = 0;
  for (size_t at = 0; (at = find_bytes(text, what, at)) != std::string::npos; at += what.size()) ++count;
  return make_integer(count);
}

Value replace_method(Render& r, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "replace", {"old", "new", "count"});
  return make_string(r, replace(r, self.text(), bound.text(0), bound.text(1), bound.integer(2, -1)));
}

Value join_method(Render& r, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "join", {"iterable"});
  if (bound.required(0).is_undefined()) return make_string(r, Text());
  Text out;
  bool any = false;
  for (const Value& item : iterate(r, bound.required(0))) {
    if (!item.string()) template_error("join: expected str instance, {} found", type_name(item));
    if (std::exchange(any, true)) out.append(self.text());
    out.append(item.text());
    r.budget.text(out.size());
  }
  return make_string(r, std::move(out));
}

template <Side text_side>
Value justify_method(Render& r, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "justify", {"width", "fillchar"});
  const Text fill = bound[1] ? bound.text(1) : Text(" ");
  if (count_code_points(fill.bytes) != 1) template_error("The fill character must be exactly one character long");
  return make_string(r, justify(r, self.text(), index_of(bound.required(0), "width"), fill, text_side));
}

Value zfill_method(Render& r, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "zfill", {"width"});
  return make_string(r, zero_fill(r, self.text(), index_of(bound.required(0), "width")));
}

template <bool at_end>
Value remove_method(Render& r, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "removeprefix", {"prefix"});
  const Text& text = self.text();
  const std::string& what = bound.text(0).bytes;
  if (at_end && text.bytes.ends_with(what)) return make_string(r, text.slice(0, text.size() - what.size()));
  if (!at_end && text.bytes.starts_with(what)) return make_string(r, text.slice(what.size(), text.size()));
  return self;
}

// str.isX: not empty and true for every code point.
template <bool (*is)(char32_t)>
Value all_method(Render&, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "is", {});
  const std::string& bytes = self.text().bytes;
  for (size_t at = 0; at < bytes.size(); at = next_code_point(bytes, at)) {
    if (!is(code_point_at(bytes, at))) return false;
  }
  return !bytes.empty();
}
bool is_alphanumeric(char32_t c) { return is_alpha(c) || is_numeric(c); }
bool is_ascii(char32_t c) { return c < 0x80; }
// isdigit also takes superscripts and circled digits; those are category No with a digit value below ten.
bool is_digit(char32_t c) {
  return is_decimal(c) || c == 0xB2 || c == 0xB3 || c == 0xB9 || c == 0x2070 || (c >= 0x2074 && c <= 0x2079) || (c >= 0x2080 && c <= 0x2089) ||
         (c >= 0x2460 && c <= 0x2468);
}

template <const char* test>
Value test_method(Render& r, const Value& self, const Arguments& arguments) {
  return find_test(test)(r, self, arguments);
}
constexpr char kLower[] = "lower", kUpper[] = "upper";

template <Text (*map)(const Text&)>
Value map_method(Render& r, const Value& self, const Arguments& arguments) {
  return no_arguments(r, arguments, "case", map(self.text()));
}

Value format_method(Render& r, const Value& self, const Arguments& arguments) { return make_string(r, format_braces(r, self.text(), arguments)); }

constexpr Row kStringMethods[] = {
    {"capitalize", map_method<capitalize>},
    {"casefold", map_method<lower>},
    {"center", justify_method<Side::both>},
    {"count", count_method},
    {"endswith", starts_method<true>},
    {"find", find_method_of<false, false>},
    {"format", format_method},
    {"index", find_method_of<false, true>},
    {"isalnum", all_method<is_alphanumeric>},
    {"isalpha", all_method<is_alpha>},
    {"isascii", [](Render& r, const Value& s, const Arguments& a) { return s.text().size() == 0 ? Value(true) : all_method<is_ascii>(r, s, a); }},
    {"isdecimal", all_method<is_decimal>},
    {"isdigit", all_method<is_digit>},
    {"islower", test_method<kLower>},
    {"isnumeric", all_method<is_numeric>},
    {"isspace", all_method<is_space>},
    {"isupper", test_method<kUpper>},
    {"join", join_method},
    {"ljust", justify_method<Side::left>},
    {"lower", map_method<lower>},
    {"lstrip", strip_method<Side::left>},
    {"partition", partition_method<false>},
    {"removeprefix", remove_method<false>},
    {"removesuffix", remove_method<true>},
    {"replace", replace_method},
    {"rfind", find_method_of<true, false>},
    {"rindex", find_method_of<true, true>},
    {"rjust", justify_method<Side::right>},
    {"rpartition", partition_method<true>},
    {"rsplit", split_method<true>},
    {"rstrip", strip_method<Side::right>},
    {"split", split_method<false>},
    {"splitlines", split_lines_method},
    {"startswith", starts_method<false>},
    {"strip", strip_method<Side::both>},
    {"swapcase", map_method<swap_case>},
    {"title", map_method<title>},
    {"upper", map_method<upper>},
    {"zfill", zfill_method},
};

// list and tuple

Value list_index(Render& r, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "index", {"value", "start"});
  const auto& items = self.list()->items;
  const auto size = static_cast<int64_t>(items.size());
  int64_t at = bound.integer(1, 0);
  if (at < 0) at = std::max<int64_t>(at + size, 0);
  for (; at < size; ++at) {
    if (equals(r, items[static_cast<size_t>(at)], bound.required(0))) return make_integer(at);
  }
  template_error("value is not in list");
}
Value list_count(Render& r, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "count", {"value"});
  const auto& items = self.list()->items;
  return make_integer(std::count_if(items.begin(), items.end(), [&](const Value& item) { return equals(r, item, bound.required(0)); }));
}
Value copy_method(Render&, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "copy", {});
  return self;  // immutable
}

// dict

template <ListKind kind>
Value dict_view(Render& r, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "view", {});
  std::vector<Value> out;
  for (const auto& [key, value] : self.dict()->entries) {
    out.push_back(kind == ListKind::keys ? key : kind == ListKind::values ? value : make_list(r, {key, value}, ListKind::tuple));
  }
  return make_list(r, std::move(out), kind);
}
Value dict_get(Render& r, const Value& self, const Arguments& arguments) {
  const Bound bound(arguments, "get", {"key", "default"});
  if (!hashable(bound.required(0))) template_error("unhashable type: '{}'", type_name(bound.required(0)));
  const Value* found = dict_find(r, *self.dict(), bound.required(0));
  return found ? *found : bound[1] ? *bound[1] : Value(None{});
}

constexpr Row kListMethods[] = {{"index", list_index}, {"count", list_count}, {"copy", copy_method}};
constexpr Row kDictMethods[] = {{"items", dict_view<ListKind::items>},
                                {"keys", dict_view<ListKind::keys>},
                                {"values", dict_view<ListKind::values>},
                                {"get", dict_get},
                                {"copy", copy_method}};

template <size_t n>
NativeFunction find_row(const Row (&rows)[n], std::string_view name) {
  for (const Row& row : rows) {
    if (row.first == name) return row.second;
  }
  return nullptr;
}

// Globals

Value raise_exception(Render& r, const Value&, const Arguments& arguments) {
  const Bound bound(arguments, "raise_exception", {"message"});
  template_error("{}", printable(to_text(r, bound.required(0)).bytes, 1000));
}

Value strftime_now(Render& r, const Value&, const Arguments& arguments) {
  const Bound bound(arguments, "strftime_now", {"format"});
  return make_string(r, Text(format_time(r, bound.text(0).bytes, r.clock().unix_time())));
}

// Entries of dict(mapping or pairs, **named).
std::vector<std::pair<Value, Value>> dict_entries(Render& r, const Arguments& arguments) {
  if (arguments.positional.size() > 1) template_error("dict expected at most 1 argument, got {}", arguments.positional.size());
  std::vector<std::pair<Value, Value>> entries;
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (source.dict()) {
      entries = source.dict()->entries;
    } else {
      for (const Value& pair : iterate(r, source)) {
        const std::vector<Value> parts = iterate(r, pair);
        if (parts.size() != 2) template_error("a dictionary needs pairs, got {} value(s)", parts.size());
        dict_set(r, entries, parts[0], parts[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.named) dict_set(r, entries, make_string(r, Text(name)), value);
  return entries;
}

Value dict_global(Render& r, const Value&, const Arguments& arguments) { return make_dict(r, dict_entries(r, arguments)); }

Value namespace_global(Render& r, const Value&, const Arguments& arguments) {
  const auto entries = dict_entries(r, arguments);
  const auto space = r.make_namespace();
  for (const auto& [key, value] : entries) {
    if (!key.string()) template_error("a namespace needs names, not '{}'", type_name(key));
    const std::string& name = key.text().bytes;
    if (name.starts_with('_')) template_error("a namespace cannot store the underscore-prefixed attribute '{}'", printable(name));
    space->attributes.emplace_back(name, value);
  }
  return Value(space);
}

// At most 100,000 elements, as Jinja's sandbox has it.
Value range_global(Render& r, const Value&, const Arguments& arguments) {
  const auto& given = arguments.positional;
  if (given.empty() || given.size() > 3 || !arguments.named.empty()) template_error("range() takes 1 to 3 positional arguments");
  int64_t start = 0, step = 1;
  if (given.size() > 1) start = index_of(given[0], "range start");
  const int64_t stop = index_of(given[given.size() > 1 ? 1 : 0], "range stop");
  if (given.size() > 2) step = index_of(given[2], "range step");
  if (step == 0) template_error("range() arg 3 must not be zero");
  constexpr int64_t kMaxRange = 100'000;
  const Integer distance = step > 0 ? Integer{stop} - start : Integer{start} - stop;
  const Integer stride = step > 0 ? Integer{step} : -Integer{step};
  const Integer size = distance <= 0 ? Integer{0} : (distance + stride - 1) / stride;
  if (size > kMaxRange) template_error("Range too big. The sandbox blocks ranges larger than {}.", kMaxRange);
  auto list = std::make_shared<ListData>();
  r.budget.step(static_cast<size_t>(size));
  for (Integer i = 0; i < size; ++i) list->items.push_back(Integer{start} + i * step);
  list->kind = ListKind::range;
  list->repr = step == 1 ? fmt::format("range({}, {})", start, stop) : fmt::format("range({}, {}, {})", start, stop, step);
  return std::shared_ptr<const ListData>(std::move(list));
}

}  // namespace

NativeFunction find_method(const Value& object, std::string_view name) {
  if (object.string()) return find_row(kStringMethods, name);
  if (object.dict()) return find_row(kDictMethods, name);
  const ListData* list = object.list();
  const bool has_methods = list && (list->kind == ListKind::list || list->kind == ListKind::tuple || list->kind == ListKind::range);
  if (!has_methods || (list->kind != ListKind::list && name == "copy")) return nullptr;
  return find_row(kListMethods, name);
}

bool is_mutating_method(const Value& object, std::string_view name) {
  static constexpr std::string_view kDict[] = {"clear", "pop", "popitem", "setdefault", "update", "fromkeys"};
  static constexpr std::string_view kList[] = {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"};
  if (object.dict()) return std::find(std::begin(kDict), std::end(kDict), name) != std::end(kDict);
  return object.list() && std::find(std::begin(kList), std::end(kList), name) != std::end(kList);
}

void install_globals(Render& r) {
  static constexpr Row kGlobals[] = {
      {"raise_exception", raise_exception}, {"strftime_now", strftime_now}, {"dict", dict_global}, {"namespace", namespace_global}, {"range", range_global}};
  for (const auto& [name, function] : kGlobals) {
    r.set(name, Value(std::shared_ptr<Object>(std::make_shared<Native>(std::string(name), function))));
  }
}

}  // namespace frugal::text::jinja
