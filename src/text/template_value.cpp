#include "text/template_value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/template_render.h"
#include "text/template_text.h"

namespace frugal::text::jinja {

const Text& Value::text() const {
  const StringData* data = string();
  FRUGAL_ASSERT(data != nullptr);
  return data->text;
}

Value Object::call(Render&, const Arguments&) { template_error("{} is not callable", repr()); }

Value undefined(std::string message) { return Undefined{std::make_shared<const std::string>(std::move(message))}; }

Value make_string(Render& r, Text text) {
  r.budget.text(text.size());
  const size_t bytes = 2 * text.size() + sizeof(StringData);
  return std::shared_ptr<const StringData>(new StringData{std::move(text), Held(&r.budget, bytes)});
}

namespace {

int depth_of(const Value& value) {
  if (const ListData* list = value.list()) return list->depth;
  if (const DictData* dict = value.dict()) return dict->depth;
  return 0;
}

int checked_depth(int depth) {
  if (depth > kMaxValueDepth) template_error("values nested deeper than {}", kMaxValueDepth);
  return depth;
}

}  // namespace

Value make_list(Render& r, std::vector<Value> items, ListKind kind) {
  r.budget.step(1 + items.size());
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, depth_of(item));
  checked_depth(depth + 1);
  const size_t bytes = items.size() * sizeof(Value) + sizeof(ListData);
  return std::shared_ptr<const ListData>(new ListData{kind, std::move(items), depth + 1, {}, 0, Held(&r.budget, bytes)});
}

Value make_dict(Render& r, std::vector<std::pair<Value, Value>> entries) {
  r.budget.step(1 + entries.size());
  int depth = 0;
  for (const auto& [key, value] : entries) depth = std::max({depth, depth_of(key), depth_of(value)});
  checked_depth(depth + 1);
  const size_t bytes = entries.size() * 2 * sizeof(Value) + sizeof(DictData);
  return std::shared_ptr<const DictData>(new DictData{std::move(entries), depth + 1, Held(&r.budget, bytes)});
}

bool hashable(const Value& value) {
  if (value.dict()) return false;
  if (const ListData* list = value.list()) {
    if (list->kind == ListKind::tuple) return std::all_of(list->items.begin(), list->items.end(), hashable);
    return list->kind == ListKind::range || list->kind == ListKind::generator;
  }
  return true;
}

namespace {

// The entry of this key. Linear: dictionaries of templates are small, and the budget pays for large ones.
template <typename Entries>
auto* find_entry(Render& r, Entries& entries, const Value& key) {
  r.budget.step(entries.size() / 16);
  for (auto& entry : entries) {
    if (entry.first.string() && key.string()) {
      if (entry.first.text().bytes == key.text().bytes) return &entry;
    } else if (equals(r, entry.first, key)) {
      return &entry;
    }
  }
  return static_cast<decltype(&*entries.begin())>(nullptr);
}

}  // namespace

void dict_set(Render& r, std::vector<std::pair<Value, Value>>& entries, const Value& key, Value value) {
  if (!hashable(key)) template_error("unhashable type: '{}'", type_name(key));
  if (auto* entry = find_entry(r, entries, key)) {
    entry->second = std::move(value);
  } else {
    entries.emplace_back(key, std::move(value));
  }
}

const Value* dict_find(Render& r, const DictData& dict, const Value& key) {
  const auto* entry = find_entry(r, dict.entries, key);
  return entry ? &entry->second : nullptr;
}

const Value* dict_find(const DictData& dict, std::string_view key) {
  for (const auto& [name, value] : dict.entries) {
    if (name.string() && name.text().bytes == key) return &value;
  }
  return nullptr;
}

std::optional<Number> number_of(const Value& value) {
  if (const bool* flag = std::get_if<bool>(&value)) return Number{false, *flag, static_cast<double>(*flag)};
  if (const Integer* integer = std::get_if<Integer>(&value)) return Number{false, *integer, static_cast<double>(*integer)};
  if (const double* real = std::get_if<double>(&value)) return Number{true, 0, *real};
  return std::nullopt;
}

int64_t index_of(const Value& value, std::string_view what) {
  const auto number = number_of(value);
  if (!number || number->is_float) template_error("{} must be an integer, not '{}'", what, type_name(value));
  constexpr Integer kLimit = Integer{1} << 62;
  return static_cast<int64_t>(std::clamp(number->integer, -kLimit, kLimit));
}

bool truthy(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (const auto number = number_of(value)) return number->is_float ? number->real != 0 : number->integer != 0;
  if (const StringData* string = value.string()) return !string->text.bytes.empty();
  if (const ListData* list = value.list()) return list->kind == ListKind::generator || !list->items.empty();
  if (const DictData* dict = value.dict()) return !dict->entries.empty();
  return true;
}

namespace {

bool equal_lists(Render& r, const ListData& a, const ListData& b) {
  if (a.kind != b.kind || a.items.size() != b.items.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    if (!equals(r, a.items[i], b.items[i])) return false;
  }
  return true;
}

bool equal_dicts(Render& r, const DictData& a, const DictData& b) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    const Value* other = dict_find(r, b, key);
    if (!other || !equals(r, value, *other)) return false;
  }
  return true;
}

}  // namespace

bool equals(Render& r, const Value& a, const Value& b) {
  r.budget.step();
  const auto x = number_of(a), y = number_of(b);
  if (x && y) return x->is_float || y->is_float ? x->real == y->real : x->integer == y->integer;
  if (a.index() != b.index()) return false;
  if (a.string()) return a.text().bytes == b.text().bytes;
  if (const ListData* list = a.list()) {
    if (list == b.list()) return true;
    return list->kind != ListKind::generator && equal_lists(r, *list, *b.list());
  }
  if (const DictData* dict = a.dict()) return dict == b.dict() || equal_dicts(r, *dict, *b.dict());
  if (a.name_space()) return a.name_space() == b.name_space();
  if (a.object()) return a.object() == b.object();
  return true;  // both none or both undefined
}

bool less(Render& r, const Value& a, const Value& b) {
  r.budget.step();
  const auto x = number_of(a), y = number_of(b);
  if (x && y) return x->is_float || y->is_float ? x->real < y->real : x->integer < y->integer;
  if (a.string() && b.string()) return a.text().bytes < b.text().bytes;  // order of UTF-8 = order of code points
  const ListData *p = a.list(), *q = b.list();
  if (p && q && p->kind == q->kind && (p->kind == ListKind::list || p->kind == ListKind::tuple)) {
    for (size_t i = 0; i < p->items.size() && i < q->items.size(); ++i) {
      if (!equals(r, p->items[i], q->items[i])) return less(r, p->items[i], q->items[i]);
    }
    return p->items.size() < q->items.size();
  }
  if (a.is_undefined() || b.is_undefined()) r.fail_undefined(a.is_undefined() ? a : b);
  template_error("'<' is not defined between '{}' and '{}'", type_name(a), type_name(b));
}

bool contains(Render& r, const Value& container, const Value& item) {
  if (container.string()) {
    if (!item.string()) template_error("'in <string>' needs a string on the left, not '{}'", type_name(item));
    r.budget.step(container.text().size() / 4096);
    return find_bytes(container.text().bytes, item.text().bytes) != std::string::npos;
  }
  if (const DictData* dict = container.dict()) {
    if (!hashable(item)) template_error("unhashable type: '{}'", type_name(item));
    return dict_find(r, *dict, item) != nullptr;
  }
  if (const ListData* list = container.list(); list && list->kind != ListKind::generator) {
    return std::any_of(list->items.begin(), list->items.end(), [&](const Value& x) { return equals(r, x, item); });
  }
  for (const Value& x : iterate(r, container)) {
    if (equals(r, x, item)) return true;
  }
  return false;
}

std::vector<Value> iterate(Render& r, const Value& value) {
  std::vector<Value> out;
  if (value.is_undefined()) return out;
  if (const ListData* list = value.list()) {
    r.budget.step(list->items.size());
    out.assign(list->items.begin() + static_cast<std::ptrdiff_t>(list->consumed), list->items.end());
    if (list->kind == ListKind::generator) list->consumed = list->items.size();
  } else if (const DictData* dict = value.dict()) {
    r.budget.step(dict->entries.size());
    for (const auto& entry : dict->entries) out.push_back(entry.first);
  } else if (value.string()) {
    const Text& text = value.text();
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = next_code_point(text.bytes, begin);
      r.budget.step();
      out.push_back(make_string(r, text.slice(begin, end)));
      begin = end;
    }
  } else {
    template_error("'{}' object is not iterable", type_name(value));
  }
  return out;
}

std::string_view type_name(const Value& value) {
  static constexpr std::string_view kNames[] = {"Undefined", "NoneType", "bool", "int", "float", "str", "list", "dict", "Namespace", "function"};
  static constexpr std::string_view kLists[] = {"list", "tuple", "range", "generator", "dict_keys", "dict_values", "dict_items"};
  if (const ListData* list = value.list()) return kLists[static_cast<size_t>(list->kind)];
  return kNames[value.index()];
}

std::string integer_text(Integer value) {
  std::string digits;
  const bool negative = value < 0;
  do {
    const int digit = static_cast<int>(value % 10);
    digits += static_cast<char>('0' + (digit < 0 ? -digit : digit));
    value /= 10;
  } while (value != 0);
  if (negative) digits += '-';
  std::reverse(digits.begin(), digits.end());
  return digits;
}

// Python's repr: the shortest digits that read back, exponent below -4 or from 16 on, and always a ".0" or exponent.
std::string float_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  std::string_view text(buffer, static_cast<size_t>(end - buffer));
  const size_t e = text.find('e');
  int exponent = 0;
  const char* digits = text.data() + e + 1;
  std::from_chars(*digits == '+' ? digits + 1 : digits, end, exponent);
  if (exponent < -4 || exponent >= 16) return std::string(text);  // to_chars writes two exponent digits, as Python does
  const auto fixed = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed).ptr;
  std::string out(buffer, fixed);
  if (out.find('.') == std::string::npos) out += ".0";
  return out;
}

Text to_text(Render& r, const Value& value) {
  if (value.is_undefined()) return {};
  if (value.string()) {
    r.budget.step(value.text().size() / 4096);
    return value.text();
  }
  Text out;
  append_repr(r, value, out);
  return out;
}

namespace {

void append_sequence_repr(Render& r, const ListData& list, Text& out, int depth) {
  static constexpr std::string_view kOpen[] = {"[", "(", "", "", "dict_keys([", "dict_values([", "dict_items(["};
  static constexpr std::string_view kClose[] = {"]", ")", "", "", "])", "])", "])"};
  const auto kind = static_cast<size_t>(list.kind);
  if (list.kind == ListKind::range) return out.append(list.repr);
  if (list.kind == ListKind::generator) return out.append("<generator object>");
  out.append(kOpen[kind]);
  for (size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out.append(", ");
    append_repr(r, list.items[i], out, depth + 1);
  }
  if (list.kind == ListKind::tuple && list.items.size() == 1) out.append(",");
  out.append(kClose[kind]);
}

}  // namespace

void append_repr(Render& r, const Value& value, Text& out, int depth) {
  checked_depth(depth);
  r.budget.step();
  r.budget.text(out.size());
  if (value.is_undefined()) return out.append("Undefined");
  if (value.is_none()) return out.append("None");
  if (const bool* flag = std::get_if<bool>(&value)) return out.append(*flag ? "True" : "False");
  if (const Integer* integer = std::get_if<Integer>(&value)) return out.append(integer_text(*integer));
  if (const double* real = std::get_if<double>(&value)) return out.append(float_repr(*real));
  if (value.string()) return append_string_repr(value.text(), out);
  if (const ListData* list = value.list()) return append_sequence_repr(r, *list, out, depth);
  if (const Object* object = value.object()) return out.append(object->repr());
  if (const NamespaceData* space = value.name_space()) {
    out.append("<Namespace {");
    for (size_t i = 0; i < space->attributes.size(); ++i) {
      if (i > 0) out.append(", ");
      append_string_repr(Text(space->attributes[i].first), out);
      out.append(": ");
      append_repr(r, space->attributes[i].second, out, depth + 1);
    }
    return out.append("}>");
  }
  out.append("{");
  const auto& entries = value.dict()->entries;
  for (size_t i = 0; i < entries.size(); ++i) {
    if (i > 0) out.append(", ");
    append_repr(r, entries[i].first, out, depth + 1);
    out.append(": ");
    append_repr(r, entries[i].second, out, depth + 1);
  }
  out.append("}");
}

namespace {

Value input_string(const std::string& text, char mark) {
  if (!valid_utf8(text)) template_error("invalid UTF-8 in \"{}\"", printable(text));
  return std::shared_ptr<const StringData>(new StringData{Text(text, mark), {}});
}

}  // namespace

Value from_json(const Json& json, char mark, int depth) {
  checked_depth(depth + 1);
  switch (json.type()) {
    case Json::value_t::null:
    case Json::value_t::discarded: return None{};
    case Json::value_t::boolean: return json.get<bool>();
    case Json::value_t::number_integer: return Integer{json.get<int64_t>()};
    case Json::value_t::number_unsigned: return static_cast<Integer>(json.get<uint64_t>());
    case Json::value_t::number_float: return json.get<double>();
    case Json::value_t::string: return input_string(json.get_ref<const std::string&>(), mark);
    case Json::value_t::array: {
      std::vector<Value> items;
      int deepest = 0;
      for (const Json& item : json) {
        items.push_back(from_json(item, mark, depth + 1));
        deepest = std::max(deepest, depth_of(items.back()));
      }
      return std::shared_ptr<const ListData>(new ListData{ListKind::list, std::move(items), deepest + 1, {}, 0, {}});
    }
    case Json::value_t::object: {
      std::vector<std::pair<Value, Value>> entries;
      int deepest = 0;
      for (const auto& [key, item] : json.items()) {
        entries.emplace_back(input_string(key, mark), from_json(item, mark, depth + 1));
        deepest = std::max(deepest, depth_of(entries.back().second));
      }
      return std::shared_ptr<const DictData>(new DictData{std::move(entries), deepest + 1, {}});
    }
    case Json::value_t::binary: break;
  }
  template_error("a value of the request is not JSON");
}

}  // namespace frugal::text::jinja
