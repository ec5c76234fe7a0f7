// Filters that work on sequences and mappings.
#include <algorithm>
#include <utility>

#include "text/template_filters.h"
#include "text/template_text.h"

namespace frugal::text::jinja {

int64_t length_of(Render& r, const Value& value) {
  if (value.is_undefined()) return 0;
  if (value.string()) {
    r.budget.step(value.text().size() / 4096);
    return static_cast<int64_t>(count_code_points(value.text().bytes));
  }
  if (const DictData* dict = value.dict()) return static_cast<int64_t>(dict->entries.size());
  const ListData* list = value.list();
  if (!list || list->kind == ListKind::generator) template_error("object of type '{}' has no len()", type_name(value));
  return static_cast<int64_t>(list->items.size());
}

Value value_at(Render& r, const Value& item, const Value& path, const Value* fallback) {
  Value at = item;
  const auto descend = [&](const Value& part) {
    at = get_item(r, at, part);
    if (fallback && !fallback->is_none() && at.is_undefined()) at = *fallback;
  };
  if (path.is_none()) return at;
  if (!path.string()) {
    descend(path);
    return at;
  }
  const std::string dot = ".";
  for (const Text& part : split(r, path.text(), &dot, -1)) {
    const bool digits = part.size() > 0 && part.bytes.find_first_not_of("0123456789") == std::string::npos;
    descend(digits ? Value(*parse_python_integer(part.bytes, 10)) : make_string(r, part));
  }
  return at;
}

namespace filters {
namespace {

Value generator(Render& r, std::vector<Value> items) { return make_list(r, std::move(items), ListKind::generator); }

Value folded(Render& r, const Value& value, bool case_sensitive) {
  return !case_sensitive && value.string() ? make_string(r, jinja::lower(value.text())) : value;
}

// Stable, by key; reversed as Python reverses (equal elements keep their order).
std::vector<Value> sorted_by(Render& r, std::vector<Value> items, const std::vector<Value>& keys, bool reverse) {
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = reverse ? order.size() - 1 - i : i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return less(r, keys[a], keys[b]); });
  if (reverse) std::reverse(order.begin(), order.end());
  std::vector<Value> out;
  for (const size_t i : order) out.push_back(std::move(items[i]));
  return out;
}

Value pair_of(Render& r, const Value& a, const Value& b) { return make_list(r, {a, b}, ListKind::tuple); }

std::vector<Value> pairs_of(Render& r, const DictData& dict) {
  std::vector<Value> out;
  for (const auto& [key, value] : dict.entries) out.push_back(pair_of(r, key, value));
  return out;
}

}  // namespace

Value length(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "length", {});
  return make_integer(length_of(r, value));
}

Value list(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "list", {});
  return make_list(r, iterate(r, value));
}

Value items(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "items", {});
  if (value.is_undefined()) return generator(r, {});
  if (!value.dict()) template_error("Can only get item pairs from a mapping.");
  return generator(r, pairs_of(r, *value.dict()));
}

Value fallback(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "default", {"default_value", "boolean"});
  const Value other = bound[0] ? *bound[0] : make_string(r, Text());
  return value.is_undefined() || (bound.flag(1, false) && !truthy(value)) ? other : value;
}

Value first(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "first", {});
  const ListData* list = value.list();
  if (list && list->kind == ListKind::generator && list->consumed < list->items.size()) return list->items[list->consumed++];
  if (value.string() && value.text().size() > 0) return get_item(r, value, make_integer(0));
  const std::vector<Value> all = iterate(r, value);
  return all.empty() ? undefined("No first item, sequence was empty.") : all.front();
}

Value last(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "last", {});
  if (value.list() && value.list()->kind == ListKind::generator) template_error("'generator' object is not reversible");
  if (value.string() && value.text().size() > 0) return get_item(r, value, make_integer(-1));
  const std::vector<Value> all = iterate(r, value);
  return all.empty() ? undefined("No last item, sequence was empty.") : all.back();
}

Value reverse(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "reverse", {});
  std::vector<Value> all = iterate(r, value);
  std::reverse(all.begin(), all.end());
  if (value.string()) {
    Text out;
    for (const Value& c : all) out.append(c.text());
    return make_string(r, std::move(out));
  }
  const bool was_generator = value.list() && value.list()->kind == ListKind::generator;
  return make_list(r, std::move(all), was_generator ? ListKind::list : ListKind::generator);
}

Value join(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "join", {"d", "attribute"});
  const Text separator = bound[0] ? to_text(r, *bound[0]) : Text();
  Text out;
  bool any = false;
  for (const Value& item : iterate(r, value)) {
    if (std::exchange(any, true)) out.append(separator);
    out.append(to_text(r, bound[1] && !bound[1]->is_none() ? value_at(r, item, *bound[1], nullptr) : item));
    r.budget.text(out.size());
  }
  return make_string(r, std::move(out));
}

Value attr(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "attr", {"name"});
  const std::string& name = bound.text(0).bytes;
  if (value.is_undefined()) r.fail_undefined(value);
  if (value.dict() && !find_method(value, name)) return undefined(fmt::format("'dict object' has no attribute '{}'", name));
  return get_attribute(r, value, name);
}

Value batch(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "batch", {"linecount", "fill_with"});
  const int64_t size = index_of(bound.required(0), "linecount");
  std::vector<Value> out, row;
  for (Value& item : iterate(r, value)) {
    if (static_cast<int64_t>(row.size()) == size) out.push_back(make_list(r, std::exchange(row, {})));
    row.push_back(std::move(item));
  }
  if (!row.empty()) {
    if (bound[1] && !bound[1]->is_none()) {
      while (static_cast<int64_t>(row.size()) < size) {
        r.budget.step();
        row.push_back(*bound[1]);
      }
    }
    out.push_back(make_list(r, std::move(row)));
  }
  return generator(r, std::move(out));
}

Value slice(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "slice", {"slices", "fill_with"});
  const std::vector<Value> all = iterate(r, value);
  const int64_t slices = index_of(bound.required(0), "slices"), size = static_cast<int64_t>(all.size());
  if (slices == 0) template_error("division by zero");
  std::vector<Value> out;
  int64_t at = 0;
  for (int64_t i = 0; i < slices; ++i) {
    const bool extra = i < size % slices;
    const int64_t end = at + size / slices + extra;
    std::vector<Value> row(all.begin() + at, all.begin() + end);
    if (bound[1] && !bound[1]->is_none() && !extra) row.push_back(*bound[1]);
    out.push_back(make_list(r, std::move(row)));
    at = end;
  }
  return generator(r, std::move(out));
}

Value sort(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "sort", {"reverse", "case_sensitive", "attribute"});
  const bool sensitive = bound.flag(1, false);
  std::vector<Value> paths{None{}};
  if (bound[2] && bound[2]->string()) {
    paths.clear();
    const std::string comma = ",";
    for (Text& path : split(r, bound[2]->text(), &comma, -1)) paths.push_back(make_string(r, std::move(path)));
  } else if (bound[2]) {
    paths[0] = *bound[2];
  }
  std::vector<Value> all = iterate(r, value), keys;
  for (const Value& item : all) {
    std::vector<Value> parts;
    for (const Value& path : paths) parts.push_back(folded(r, value_at(r, item, path, nullptr), sensitive));
    keys.push_back(make_list(r, std::move(parts)));
  }
  return make_list(r, sorted_by(r, std::move(all), keys, bound.flag(0, false)));
}

Value dictsort(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "dictsort", {"case_sensitive", "by", "reverse"});
  const std::string by = bound[1] ? bound.text(1).bytes : "key";
  if (by != "key" && by != "value") template_error("You can only sort by either \"key\" or \"value\"");
  if (value.is_undefined()) r.fail_undefined(value);
  if (!value.dict()) template_error("dictsort needs a mapping, not '{}'", type_name(value));
  std::vector<Value> keys;
  for (const auto& [key, item] : value.dict()->entries) keys.push_back(folded(r, by == "key" ? key : item, bound.flag(0, false)));
  return make_list(r, sorted_by(r, pairs_of(r, *value.dict()), keys, bound.flag(2, false)));
}

Value groupby(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "groupby", {"attribute", "default", "case_sensitive"});
  const bool sensitive = bound.flag(2, false);
  std::vector<Value> all = iterate(r, value), keys;
  const auto key_of = [&](const Value& item) { return value_at(r, item, bound.required(0), bound[1]); };
  for (const Value& item : all) keys.push_back(folded(r, key_of(item), sensitive));
  all = sorted_by(r, std::move(all), keys, false);
  std::vector<Value> groups;
  for (size_t begin = 0; begin < all.size();) {
    const Value key = key_of(all[begin]);
    std::vector<Value> members;
    size_t end = begin;
    for (; end < all.size() && equals(r, folded(r, key_of(all[end]), sensitive), folded(r, key, sensitive)); ++end) members.push_back(all[end]);
    if (end == begin) members.push_back(all[end++]);  // a key that is not equal to itself (NaN)
    auto group = std::make_shared<ListData>();
    const Value rows = make_list(r, std::move(members));
    group->kind = ListKind::tuple;
    group->repr = "group";
    group->items = {key, rows};
    group->depth = rows.list()->depth + 1;
    groups.push_back(std::shared_ptr<const ListData>(std::move(group)));
    begin = end;
  }
  return make_list(r, std::move(groups));
}

Value unique(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "unique", {"case_sensitive", "attribute"});
  std::vector<Value> out, seen;
  for (Value& item : iterate(r, value)) {
    const Value key = folded(r, value_at(r, item, bound[1] ? *bound[1] : Value(None{}), nullptr), bound.flag(0, false));
    if (!hashable(key)) template_error("unhashable type: '{}'", type_name(key));
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& other) { return equals(r, key, other); })) continue;
    seen.push_back(key);
    out.push_back(std::move(item));
  }
  return generator(r, std::move(out));
}

namespace {

Value extreme(Render& r, const Value& value, const Arguments& arguments, bool largest) {
  const Bound bound(arguments, largest ? "max" : "min", {"case_sensitive", "attribute"});
  const auto key_of = [&](const Value& item) { return folded(r, value_at(r, item, bound[1] ? *bound[1] : Value(None{}), nullptr), bound.flag(0, false)); };
  std::vector<Value> all = iterate(r, value);
  if (all.empty()) return undefined("No aggregated item, sequence was empty.");
  size_t best = 0;
  Value best_key = key_of(all[0]);
  for (size_t i = 1; i < all.size(); ++i) {
    const Value key = key_of(all[i]);
    if (!(largest ? less(r, best_key, key) : less(r, key, best_key))) continue;
    best = i;
    best_key = key;
  }
  return all[best];
}

}  // namespace

Value max(Render& r, const Value& value, const Arguments& arguments) { return extreme(r, value, arguments, true); }
Value min(Render& r, const Value& value, const Arguments& arguments) { return extreme(r, value, arguments, false); }

Value sum(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "sum", {"attribute", "start"});
  Value total = bound[1] ? *bound[1] : make_integer(0);
  if (total.string()) template_error("sum() can't sum strings");
  for (const Value& item : iterate(r, value)) {
    total = apply_binary(r, BinaryOp::add, total, value_at(r, item, bound[0] ? *bound[0] : Value(None{}), nullptr));
  }
  return total;
}

Value map(Render& r, const Value& value, const Arguments& arguments) {
  std::vector<Value> out;
  if (!truthy(value)) return generator(r, {});
  const bool by_attribute =
      arguments.positional.empty() && std::any_of(arguments.named.begin(), arguments.named.end(), [](const auto& a) { return a.first == "attribute"; });
  if (by_attribute) {
    const Bound bound(arguments, "map", {"attribute", "default"});
    for (const Value& item : iterate(r, value)) out.push_back(value_at(r, item, bound.required(0), bound[1]));
    return generator(r, std::move(out));
  }
  if (arguments.positional.empty()) template_error("map requires a filter argument");
  const Value& name = arguments.positional[0];
  const FilterFunction filter = name.string() ? find_filter(name.text().bytes) : nullptr;
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin());
  for (const Value& item : iterate(r, value)) {
    if (!filter) template_error("No filter named '{}'", printable(to_text(r, name).bytes));
    r.budget.step();
    out.push_back(filter(r, item, rest));
  }
  return generator(r, std::move(out));
}

namespace {

// select, reject and their attr forms: keep the items for which the test gives `wanted`.
Value picked(Render& r, const Value& value, const Arguments& arguments, bool by_attribute, bool wanted) {
  if (!truthy(value)) return generator(r, {});
  const size_t at = by_attribute ? 1 : 0;
  if (arguments.positional.size() < at) template_error("Missing parameter for attribute name");
  const Value* name = arguments.positional.size() > at ? &arguments.positional[at] : nullptr;
  const TestFunction test = name && name->string() ? find_test(name->text().bytes) : nullptr;
  Arguments rest = arguments;
  if (name) rest.positional.erase(rest.positional.begin(), rest.positional.begin() + static_cast<std::ptrdiff_t>(at + 1));
  std::vector<Value> out;
  for (Value& item : iterate(r, value)) {
    if (name && !test) template_error("No test named '{}'", printable(to_text(r, *name).bytes));
    const Value subject = by_attribute ? value_at(r, item, arguments.positional[0], nullptr) : item;
    r.budget.step();
    if ((test ? test(r, subject, rest) : truthy(subject)) == wanted) out.push_back(std::move(item));
  }
  return generator(r, std::move(out));
}

}  // namespace

Value select(Render& r, const Value& value, const Arguments& arguments) { return picked(r, value, arguments, false, true); }
Value reject(Render& r, const Value& value, const Arguments& arguments) { return picked(r, value, arguments, false, false); }
Value selectattr(Render& r, const Value& value, const Arguments& arguments) { return picked(r, value, arguments, true, true); }
Value rejectattr(Render& r, const Value& value, const Arguments& arguments) { return picked(r, value, arguments, true, false); }

}  // namespace filters
}  // namespace frugal::text::jinja
