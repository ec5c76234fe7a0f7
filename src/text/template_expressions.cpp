// Evaluation of expressions: names, literals, subscripts, calls, arithmetic, comparison.
#include <algorithm>
#include <cmath>

#include "text/template_render.h"
#include "text/template_text.h"

namespace frugal::text::jinja {

Value NameExpr::eval(Render& r) const { return r.lookup(name); }

Value ListExpr::eval(Render& r) const {
  std::vector<Value> values;
  values.reserve(items.size());
  for (const ExprPtr& item : items) values.push_back(r.eval(*item));
  return make_list(r, std::move(values), kind);
}

Value DictExpr::eval(Render& r) const {
  std::vector<std::pair<Value, Value>> entries;
  for (const auto& [key, value] : items) {
    const Value evaluated = r.eval(*key);
    dict_set(r, entries, evaluated, r.eval(*value));
  }
  return make_dict(r, std::move(entries));
}

Value AttributeExpr::eval(Render& r) const { return get_attribute(r, r.eval(*object), name); }

Value ItemExpr::eval(Render& r) const {
  const Value container = r.eval(*object);
  return get_item(r, container, r.eval(*key));
}

Value SliceExpr::eval(Render& r) const {
  const Value container = r.eval(*object);
  const auto part = [&](const ExprPtr& expr) { return expr ? r.eval(*expr) : Value(None{}); };
  const Value begin = part(start), end = part(stop);
  return get_slice(r, container, begin, end, part(step));
}

Arguments CallArguments::eval(Render& r) const {
  Arguments out;
  for (const ExprPtr& expr : positional) out.positional.push_back(r.eval(*expr));
  for (const auto& [name, expr] : named) out.named.emplace_back(name, r.eval(*expr));
  if (more_positional) {
    for (Value& value : iterate(r, r.eval(*more_positional))) out.positional.push_back(std::move(value));
  }
  if (more_named) {
    const Value value = r.eval(*more_named);
    if (!value.dict()) template_error("argument after ** must be a mapping, not '{}'", type_name(value));
    for (const auto& [key, item] : value.dict()->entries) {
      if (!key.string()) template_error("keywords must be strings");
      out.named.emplace_back(key.text().bytes, item);
    }
  }
  for (size_t i = 0; i < out.named.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      r.budget.step();
      if (out.named[i].first == out.named[j].first) template_error("two values for the argument '{}'", printable(out.named[i].first));
    }
  }
  return out;
}

Value call_value(Render& r, const Value& callee, const Arguments& arguments) {
  if (callee.is_undefined()) r.fail_undefined(callee);
  if (!callee.object()) template_error("'{}' object is not callable", type_name(callee));
  return callee.object()->call(r, arguments);
}

Value CallExpr::eval(Render& r) const { return eval_with(r, nullptr); }

Value CallExpr::eval_with(Render& r, const Value* caller) const {
  const Value function = r.eval(*callee);
  Arguments evaluated = arguments.eval(r);
  if (caller) evaluated.named.emplace_back("caller", *caller);
  return call_value(r, function, evaluated);
}

Value FilterExpr::eval(Render& r) const { return apply(r, Undefined{}); }

Value FilterExpr::apply(Render& r, const Value& captured) const {
  if (!function) template_error("No filter named '{}'", printable(name));
  r.budget.step();
  // The innermost filter of a block has no input expression; the chain above it passes the captured text down.
  const auto* inner = dynamic_cast<const FilterExpr*>(input.get());
  const Value value = !input ? captured : inner ? inner->apply(r, captured) : r.eval(*input);
  return function(r, value, arguments.eval(r));
}

Value TestExpr::eval(Render& r) const {
  if (!function) template_error("No test named '{}'", printable(name));
  const Value value = r.eval(*input);
  return function(r, value, arguments.eval(r));
}

Value UnaryExpr::eval(Render& r) const {
  const Value value = r.eval(*operand);
  if (op == UnaryOp::logical_not) return !truthy(value);
  if (value.is_undefined()) r.fail_undefined(value);
  const auto number = number_of(value);
  if (!number) template_error("bad operand type for unary sign: '{}'", type_name(value));
  if (number->is_float) return op == UnaryOp::negate ? -number->real : number->real;
  Integer result = number->integer;
  if (op == UnaryOp::negate && __builtin_sub_overflow(Integer{0}, result, &result)) template_error("an integer is over 127 bits");
  return result;
}

namespace {

[[noreturn]] void overflow() { template_error("an integer is over 127 bits"); }

Integer floor_divide(Integer a, Integer b) {
  if (b == -1) {
    Integer negated;
    if (__builtin_sub_overflow(Integer{0}, a, &negated)) overflow();
    return negated;
  }
  const Integer quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

Integer floor_modulo(Integer a, Integer b) {
  if (b == -1) return 0;
  const Integer rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

double real_modulo(double a, double b) {
  double rest = std::fmod(a, b);
  if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
  return rest == 0 ? std::copysign(0.0, b) : rest;
}

// Python's float floor division: from the remainder, not the rounded quotient.
double real_floor_divide(double a, double b) {
  const double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest != 0 && (rest < 0) != (b < 0)) quotient -= 1;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double floored = std::floor(quotient);
  return quotient - floored > 0.5 ? floored + 1 : floored;
}

Value integer_power(Integer base, Integer exponent) {
  if (exponent < 0) {
    if (base == 0) template_error("zero cannot be raised to a negative power");
    return std::pow(static_cast<double>(base), static_cast<double>(exponent));
  }
  Integer result = 1;
  while (exponent > 0) {
    if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) overflow();
  }
  return result;
}

Value integer_arithmetic(BinaryOp op, Integer a, Integer b) {
  Integer result = 0;
  switch (op) {
    case BinaryOp::add:
      if (__builtin_add_overflow(a, b, &result)) overflow();
      return result;
    case BinaryOp::subtract:
      if (__builtin_sub_overflow(a, b, &result)) overflow();
      return result;
    case BinaryOp::multiply:
      if (__builtin_mul_overflow(a, b, &result)) overflow();
      return result;
    case BinaryOp::divide: return static_cast<double>(a) / static_cast<double>(b);
    case BinaryOp::floor_divide: return floor_divide(a, b);
    case BinaryOp::modulo: return floor_modulo(a, b);
    default: return integer_power(a, b);
  }
}

Value real_power(double a, double b) {
  if (a == 0 && b < 0) template_error("zero cannot be raised to a negative power");
  const double result = std::pow(a, b);
  if (std::isnan(result) && !std::isnan(a) && !std::isnan(b)) template_error("a complex power is not supported");
  if (std::isinf(result) && !std::isinf(a) && !std::isinf(b)) template_error("a power is out of range");
  return result;
}

Value real_arithmetic(BinaryOp op, double a, double b) {
  switch (op) {
    case BinaryOp::add: return a + b;
    case BinaryOp::subtract: return a - b;
    case BinaryOp::multiply: return a * b;
    case BinaryOp::divide: return a / b;
    case BinaryOp::floor_divide: return real_floor_divide(a, b);
    case BinaryOp::modulo: return real_modulo(a, b);
    default: return real_power(a, b);
  }
}

bool is_sequence(const Value& value) {
  const ListData* list = value.list();
  return value.string() || (list && (list->kind == ListKind::list || list->kind == ListKind::tuple));
}

Value repeated(Render& r, const Value& sequence, const Value& count) {
  const int64_t times = index_of(count, "count");
  if (sequence.string()) return make_string(r, repeat(r, sequence.text(), times));
  const ListData& list = *sequence.list();
  std::vector<Value> items;
  for (int64_t i = 0; i < times && !list.items.empty(); ++i) {
    r.budget.step(1 + list.items.size());
    items.insert(items.end(), list.items.begin(), list.items.end());
  }
  return make_list(r, std::move(items), list.kind);
}

Value added(Render& r, const Value& a, const Value& b) {
  if (a.string() && b.string()) {
    r.budget.text(a.text().size() + b.text().size());
    Text out = a.text();
    out.append(b.text());
    return make_string(r, std::move(out));
  }
  const ListData *p = a.list(), *q = b.list();
  if (p && q && p->kind == q->kind && is_sequence(a)) {
    r.budget.step(p->items.size() + q->items.size());
    std::vector<Value> items = p->items;
    items.insert(items.end(), q->items.begin(), q->items.end());
    return make_list(r, std::move(items), p->kind);
  }
  template_error("cannot add '{}' and '{}'", type_name(a), type_name(b));
}

}  // namespace

Value apply_binary(Render& r, BinaryOp op, const Value& a, const Value& b) {
  const auto x = number_of(a), y = number_of(b);
  if (x && y) {
    const bool divides = op == BinaryOp::divide || op == BinaryOp::floor_divide || op == BinaryOp::modulo;
    if (divides && (y->is_float ? y->real == 0 : y->integer == 0)) template_error("division by zero");
    return x->is_float || y->is_float ? real_arithmetic(op, x->real, y->real) : integer_arithmetic(op, x->integer, y->integer);
  }
  if (op == BinaryOp::modulo && a.string()) return make_string(r, format_percent(r, a.text(), b));
  if (a.is_undefined() || b.is_undefined()) r.fail_undefined(a.is_undefined() ? a : b);
  if (op == BinaryOp::add) return added(r, a, b);
  if (op == BinaryOp::multiply && is_sequence(a) && y && !y->is_float) return repeated(r, a, b);
  if (op == BinaryOp::multiply && is_sequence(b) && x && !x->is_float) return repeated(r, b, a);
  const std::string unlike = a.dict() && b.dict() ? "two dictionaries" : fmt::format("'{}' and '{}'", type_name(a), type_name(b));
  template_error("unsupported operand types: {}", unlike);
}

Value BinaryExpr::eval(Render& r) const {
  const Value a = r.eval(*left);
  if (op == BinaryOp::logical_and) return truthy(a) ? r.eval(*right) : a;
  if (op == BinaryOp::logical_or) return truthy(a) ? a : r.eval(*right);
  return apply_binary(r, op, a, r.eval(*right));
}

Value ConcatExpr::eval(Render& r) const {
  Text out;
  for (const ExprPtr& part : parts) {
    const Text text = to_text(r, r.eval(*part));
    r.budget.text(out.size() + text.size());
    out.append(text);
  }
  return make_string(r, std::move(out));
}

bool apply_compare(Render& r, CompareOp op, const Value& a, const Value& b) {
  const auto x = number_of(a), y = number_of(b);
  const bool unordered = x && y && (std::isnan(x->real) || std::isnan(y->real));
  switch (op) {
    case CompareOp::equal: return equals(r, a, b);
    case CompareOp::not_equal: return !equals(r, a, b);
    case CompareOp::less: return less(r, a, b);
    case CompareOp::greater: return less(r, b, a);
    case CompareOp::less_equal: return !less(r, b, a) && !unordered;
    case CompareOp::greater_equal: return !less(r, a, b) && !unordered;
    case CompareOp::in: return contains(r, b, a);
    case CompareOp::not_in: return !contains(r, b, a);
  }
  return false;
}

Value CompareExpr::eval(Render& r) const {
  Value left = r.eval(*first);
  for (const auto& [op, expr] : rest) {
    Value right = r.eval(*expr);
    if (!apply_compare(r, op, left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value ConditionalExpr::eval(Render& r) const {
  if (truthy(r.eval(*condition))) return r.eval(*yes);
  return no ? r.eval(*no) : undefined("the inline if-expression evaluated to false and no else section was defined");
}

// Subscripts

namespace {

bool is_dunder(std::string_view name) { return name.starts_with("__"); }

// What Python finds on jinja2's Undefined: unsafe, hence undefined, where any other attribute of it is an error.
bool is_attribute_of_undefined(std::string_view name) {
  static constexpr std::string_view kNames[] = {"__add__",
                                                "__aiter__",
                                                "__bool__",
                                                "__call__",
                                                "__class__",
                                                "__complex__",
                                                "__delattr__",
                                                "__dir__",
                                                "__div__",
                                                "__doc__",
                                                "__eq__",
                                                "__float__",
                                                "__floordiv__",
                                                "__format__",
                                                "__ge__",
                                                "__getattr__",
                                                "__getattribute__",
                                                "__getitem__",
                                                "__getstate__",
                                                "__gt__",
                                                "__hash__",
                                                "__init__",
                                                "__init_subclass__",
                                                "__int__",
                                                "__iter__",
                                                "__le__",
                                                "__len__",
                                                "__lt__",
                                                "__mod__",
                                                "__module__",
                                                "__mul__",
                                                "__ne__",
                                                "__neg__",
                                                "__new__",
                                                "__pos__",
                                                "__pow__",
                                                "__radd__",
                                                "__rdiv__",
                                                "__reduce__",
                                                "__reduce_ex__",
                                                "__repr__",
                                                "__rfloordiv__",
                                                "__rmod__",
                                                "__rmul__",
                                                "__rpow__",
                                                "__rsub__",
                                                "__rtruediv__",
                                                "__setattr__",
                                                "__sizeof__",
                                                "__slots__",
                                                "__str__",
                                                "__sub__",
                                                "__subclasshook__",
                                                "__truediv__",
                                                "_fail_with_undefined_error",
                                                "_undefined_exception",
                                                "_undefined_hint",
                                                "_undefined_message",
                                                "_undefined_name",
                                                "_undefined_obj"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

std::optional<Value> method_of(Render& r, const Value& object, const std::string& name) {
  const NativeFunction method = find_method(object, name);
  if (!method) return std::nullopt;
  r.budget.step();
  return Value(std::shared_ptr<Object>(std::make_shared<Native>(name, method, object)));
}

Value missing(const Value& object, std::string_view name) {
  return undefined(fmt::format("'{} object' has no attribute '{}'", type_name(object), printable(name)));
}

std::optional<Value> own_attribute(Render& r, const Value& object, const std::string& name) {
  if (const NamespaceData* space = object.name_space()) {
    for (const auto& [key, value] : space->attributes) {
      r.budget.step();
      if (key == name) return value;
    }
    return std::nullopt;
  }
  if (object.object()) return object.object()->attribute(r, name);
  return method_of(r, object, name);
}

std::optional<Value> own_item(Render& r, const Value& object, const Value& key) {
  if (const DictData* dict = object.dict()) {
    const Value* found = hashable(key) ? dict_find(r, *dict, key) : nullptr;
    return found ? std::optional(*found) : std::nullopt;
  }
  const auto number = number_of(key);
  if (!number || number->is_float) return std::nullopt;
  int64_t index = index_of(key, "index");
  if (const ListData* list = object.list()) {
    const bool indexable = list->kind == ListKind::list || list->kind == ListKind::tuple || list->kind == ListKind::range;
    const auto size = static_cast<int64_t>(list->items.size());
    if (index < 0) index += size;
    if (!indexable || index < 0 || index >= size) return std::nullopt;
    return list->items[static_cast<size_t>(index)];
  }
  if (!object.string()) return std::nullopt;
  const Text& text = object.text();
  r.budget.step(text.size() / 4096);
  if (index < 0) index += static_cast<int64_t>(count_code_points(text.bytes));
  if (index < 0) return std::nullopt;
  const size_t begin = offset_of_code_point(text.bytes, static_cast<size_t>(index));
  if (begin >= text.size()) return std::nullopt;
  return make_string(r, text.slice(begin, next_code_point(text.bytes, begin)));
}

}  // namespace

Value get_attribute(Render& r, const Value& object, const std::string& name) {
  const bool of_undefined = object.is_undefined() && is_attribute_of_undefined(name);
  if (object.is_undefined() && !of_undefined) r.fail_undefined(object);
  if (of_undefined || is_dunder(name)) return undefined(fmt::format("access to attribute '{}' of '{}' object is unsafe", printable(name), type_name(object)));
  if (is_mutating_method(object, name)) return undefined(fmt::format("access to attribute '{}' of '{}' object is unsafe", name, type_name(object)));
  if (auto value = own_attribute(r, object, name)) return *value;
  if (const DictData* dict = object.dict()) {
    r.budget.step(dict->entries.size() / 16);
    if (const Value* found = dict_find(*dict, name)) return *found;
  }
  return missing(object, name);
}

Value get_item(Render& r, const Value& object, const Value& key) {
  if (object.is_undefined()) r.fail_undefined(object);
  if (auto value = own_item(r, object, key)) return *value;
  if (!key.string()) return missing(object, to_text(r, key).bytes);
  const std::string& name = key.text().bytes;
  if (!is_dunder(name) && !is_mutating_method(object, name)) {
    if (auto value = own_attribute(r, object, name)) return *value;
  }
  return missing(object, name);
}

namespace {

struct SliceRange {
  int64_t begin, end, step;
  std::vector<size_t> indices() const {
    std::vector<size_t> out;
    for (int64_t i = begin; step > 0 ? i < end : i > end; i += step) out.push_back(static_cast<size_t>(i));
    return out;
  }
};

// Python's slice.indices(size).
SliceRange slice_range(const Value& start, const Value& stop, const Value& step_value, int64_t size) {
  const int64_t step = step_value.is_none() ? 1 : index_of(step_value, "slice step");
  if (step == 0) template_error("slice step cannot be zero");
  const int64_t low = step < 0 ? -1 : 0, high = step < 0 ? size - 1 : size;
  const auto bound = [&](const Value& value, int64_t fallback) {
    if (value.is_none()) return fallback;
    const int64_t at = index_of(value, "slice index");
    return std::clamp(at < 0 ? at + size : at, low, high);
  };
  const int64_t begin = bound(start, step < 0 ? high : low), end = bound(stop, step < 0 ? low : high);
  return {begin, end, std::clamp(step, -size - 1, size + 1)};
}

Value slice_text(Render& r, const Text& text, const Value& start, const Value& stop, const Value& step) {
  r.budget.step(1 + text.size() / 1024);
  const SliceRange range = slice_range(start, stop, step, static_cast<int64_t>(count_code_points(text.bytes)));
  if (range.step == 1) {
    const size_t begin = offset_of_code_point(text.bytes, static_cast<size_t>(range.begin));
    const size_t end = offset_of_code_point(text.bytes, static_cast<size_t>(range.end));
    return make_string(r, begin < end ? text.slice(begin, end) : Text());
  }
  std::vector<size_t> offsets;
  for (size_t at = 0; at < text.size(); at = next_code_point(text.bytes, at)) offsets.push_back(at);
  Text out;
  for (const size_t i : range.indices()) out.append(text, offsets[i], next_code_point(text.bytes, offsets[i]));
  return make_string(r, std::move(out));
}

}  // namespace

Value get_slice(Render& r, const Value& object, const Value& start, const Value& stop, const Value& step) {
  if (object.is_undefined()) r.fail_undefined(object);
  if (object.string()) return slice_text(r, object.text(), start, stop, step);
  const ListData* list = object.list();
  if (!list || !(list->kind == ListKind::list || list->kind == ListKind::tuple || list->kind == ListKind::range)) {
    template_error("'{}' object is not subscriptable by a slice", type_name(object));
  }
  std::vector<Value> items;
  for (const size_t i : slice_range(start, stop, step, static_cast<int64_t>(list->items.size())).indices()) items.push_back(list->items[i]);
  // A slice of a range is a range in Python; only its text would tell the difference.
  return make_list(r, std::move(items), list->kind == ListKind::range ? ListKind::list : list->kind);
}

}  // namespace frugal::text::jinja
