// The `is` tests.
#include <algorithm>
#include <array>

#include "text/template_filters.h"
#include "text/template_text.h"

namespace frugal::text::jinja {
namespace {

using Test = TestFunction;

template <typename F>
bool plain(const Arguments& arguments, std::string_view name, F f) {
  const Bound bound(arguments, name, {});
  return f();
}

bool modulo_is(Render& r, const Value& value, const Value& divisor, int64_t wanted) {
  return equals(r, apply_binary(r, BinaryOp::modulo, value, divisor), make_integer(wanted));
}

template <CompareOp op>
bool compares(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "comparison", {"other"});
  return apply_compare(r, op, value, bound.required(0));
}

// str.islower and str.isupper: some letter has a case, and all that have one have this one.
bool is_cased(Render& r, const Value& value, bool (*wanted)(char32_t), bool (*other)(char32_t)) {
  const Text text = to_text(r, value);
  bool any = false;
  for (size_t at = 0; at < text.size(); at = next_code_point(text.bytes, at)) {
    const char32_t c = code_point_at(text.bytes, at);
    if (other(c)) return false;
    any = any || wanted(c);
  }
  return any;
}

bool same_object(const Value& a, const Value& b) {
  if (a.index() != b.index()) return false;
  if (a.string()) return a.string() == b.string() || a.text().bytes == b.text().bytes;  // Python interns constants
  if (a.list()) return a.list() == b.list();
  if (a.dict()) return a.dict() == b.dict();
  if (a.name_space()) return a.name_space() == b.name_space();
  if (a.object()) return a.object() == b.object();
  if (const Integer* integer = std::get_if<Integer>(&a)) return *integer == std::get<Integer>(b);
  if (const double* real = std::get_if<double>(&a)) return *real == std::get<double>(b);
  if (const bool* flag = std::get_if<bool>(&a)) return *flag == std::get<bool>(b);
  return a.is_none();
}

bool is_true(const Value& v, bool wanted) {
  const bool* flag = std::get_if<bool>(&v);
  return flag && *flag == wanted;
}
bool is_sequence(const Value& v) {
  const ListData* list = v.list();
  return v.is_undefined() || v.string() || v.dict() ||
         (list && (list->kind == ListKind::list || list->kind == ListKind::tuple || list->kind == ListKind::range));
}

#define FRUGAL_PLAIN(expression)                              \
  [](Render& r, const Value& v, const Arguments& a) -> bool { \
    return plain(a, "test", [&] {                             \
      (void)r;                                                \
      return bool(expression);                                \
    });                                                       \
  }

constexpr std::array<std::pair<std::string_view, Test>, 39> kTests = {{
    {"defined", FRUGAL_PLAIN(!v.is_undefined())},
    {"undefined", FRUGAL_PLAIN(v.is_undefined())},
    {"none", FRUGAL_PLAIN(v.is_none())},
    {"boolean", FRUGAL_PLAIN(v.is<bool>())},
    {"true", FRUGAL_PLAIN(is_true(v, true))},
    {"false", FRUGAL_PLAIN(is_true(v, false))},
    {"integer", FRUGAL_PLAIN(v.is<Integer>())},
    {"float", FRUGAL_PLAIN(v.is<double>())},
    {"number", FRUGAL_PLAIN(number_of(v).has_value())},
    {"string", FRUGAL_PLAIN(v.string() != nullptr)},
    {"mapping", FRUGAL_PLAIN(v.dict() != nullptr)},
    {"sequence", FRUGAL_PLAIN(is_sequence(v))},
    {"iterable", FRUGAL_PLAIN(v.is_undefined() || v.string() || v.list() || v.dict())},
    {"callable", FRUGAL_PLAIN(v.is_undefined() || v.object())},
    {"escaped", FRUGAL_PLAIN(false)},
    {"lower", FRUGAL_PLAIN(is_cased(r, v, jinja::is_lower, jinja::is_upper))},
    {"upper", FRUGAL_PLAIN(is_cased(r, v, jinja::is_upper, jinja::is_lower))},
    {"odd", FRUGAL_PLAIN(modulo_is(r, v, make_integer(2), 1))},
    {"even", FRUGAL_PLAIN(modulo_is(r, v, make_integer(2), 0))},
    {"filter", FRUGAL_PLAIN(v.string() && find_filter(v.text().bytes))},
    {"test", FRUGAL_PLAIN(v.string() && find_test(v.text().bytes))},
    {"divisibleby", [](Render& r, const Value& v, const Arguments& a) { return modulo_is(r, v, Bound(a, "divisibleby", {"num"}).required(0), 0); }},
    {"sameas", [](Render&, const Value& v, const Arguments& a) { return same_object(v, Bound(a, "sameas", {"other"}).required(0)); }},
    {"in", [](Render& r, const Value& v, const Arguments& a) { return contains(r, Bound(a, "in", {"seq"}).required(0), v); }},
    {"==", compares<CompareOp::equal>},
    {"eq", compares<CompareOp::equal>},
    {"equalto", compares<CompareOp::equal>},
    {"!=", compares<CompareOp::not_equal>},
    {"ne", compares<CompareOp::not_equal>},
    {">", compares<CompareOp::greater>},
    {"gt", compares<CompareOp::greater>},
    {"greaterthan", compares<CompareOp::greater>},
    {">=", compares<CompareOp::greater_equal>},
    {"ge", compares<CompareOp::greater_equal>},
    {"<", compares<CompareOp::less>},
    {"lt", compares<CompareOp::less>},
    {"lessthan", compares<CompareOp::less>},
    {"<=", compares<CompareOp::less_equal>},
    {"le", compares<CompareOp::less_equal>},
}};

#undef FRUGAL_PLAIN

}  // namespace

TestFunction find_test(std::string_view name) {
  for (const auto& [key, function] : kTests) {
    if (key == name) return function;
  }
  return nullptr;
}

}  // namespace frugal::text::jinja
