// The table of filters, and those that work on one text or number.
#include "text/template_filters.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "text/template_text.h"

namespace frugal::text::jinja {

FilterFunction find_filter(std::string_view name) {
  static constexpr std::array<std::pair<std::string_view, FilterFunction>, 49> kFilters = {{
      {"abs", filters::abs},
      {"attr", filters::attr},
      {"batch", filters::batch},
      {"capitalize", filters::capitalize},
      {"center", filters::center},
      {"count", filters::length},
      {"d", filters::fallback},
      {"default", filters::fallback},
      {"dictsort", filters::dictsort},
      {"e", filters::escape},
      {"escape", filters::escape},
      {"filesizeformat", filters::filesizeformat},
      {"first", filters::first},
      {"float", filters::to_float},
      {"forceescape", filters::escape},
      {"format", filters::format},
      {"groupby", filters::groupby},
      {"indent", filters::indent},
      {"int", filters::to_int},
      {"items", filters::items},
      {"join", filters::join},
      {"last", filters::last},
      {"length", filters::length},
      {"list", filters::list},
      {"lower", filters::lower},
      {"map", filters::map},
      {"max", filters::max},
      {"min", filters::min},
      {"reject", filters::reject},
      {"rejectattr", filters::rejectattr},
      {"replace", filters::replace},
      {"reverse", filters::reverse},
      {"round", filters::round},
      {"safe", filters::string},
      {"select", filters::select},
      {"selectattr", filters::selectattr},
      {"slice", filters::slice},
      {"sort", filters::sort},
      {"string", filters::string},
      {"striptags", filters::striptags},
      {"sum", filters::sum},
      {"title", filters::title},
      {"tojson", filters::tojson},
      {"trim", filters::trim},
      {"truncate", filters::truncate},
      {"unique", filters::unique},
      {"upper", filters::upper},
      {"urlencode", filters::urlencode},
      {"wordcount", filters::wordcount},
  }};
  for (const auto& [key, function] : kFilters) {
    if (key == name) return function;
  }
  return nullptr;
}

namespace {

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_space(code_point_at(text, 0))) text.remove_prefix(next_code_point(text, 0));
  while (!text.empty()) {
    const size_t last = previous_code_point(text, text.size());
    if (!is_space(code_point_at(text, last))) break;
    text = text.substr(0, last);
  }
  return text;
}

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char low = static_cast<char>(c | 0x20);
  return low >= 'a' && low <= 'z' ? low - 'a' + 10 : 99;
}

// Underscores between digits removed; false for one anywhere else.
bool remove_underscores(std::string_view text, std::string& out) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_')
      out += text[i];
    else if (i == 0 || i + 1 == text.size() || digit_of(text[i - 1]) == 99 || digit_of(text[i + 1]) == 99)
      return false;
  }
  return true;
}

}  // namespace

std::optional<Integer> parse_python_integer(std::string_view text, int base) {
  text = trimmed(text);
  bool negative = false;
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  if (text.size() > 2 && text[0] == '0') {
    const char x = static_cast<char>(text[1] | 0x20);
    const int prefix = x == 'x' ? 16 : x == 'o' ? 8 : x == 'b' ? 2 : 0;
    if (prefix != 0 && (base == prefix || base == 0)) {
      base = prefix;
      text.remove_prefix(text[2] == '_' ? 3 : 2);
    }
  }
  if (base == 0) base = 10;
  std::string digits;
  if (text.empty() || !remove_underscores(text, digits)) return std::nullopt;
  Integer value = 0;
  for (const char c : digits) {
    const int digit = digit_of(c);
    if (digit >= base) return std::nullopt;
    if (__builtin_mul_overflow(value, Integer{base}, &value) || __builtin_add_overflow(value, Integer{digit}, &value)) {
      template_error("an integer is over 127 bits");
    }
  }
  return negative ? -value : value;
}

std::optional<double> parse_python_float(std::string_view text) {
  text = trimmed(text);
  bool negative = false;
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  std::string digits;
  if (text.empty() || text[0] == '-' || text.find('(') != std::string_view::npos || !remove_underscores(text, digits)) return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (end != digits.data() + digits.size()) return std::nullopt;
  if (error == std::errc::result_out_of_range) {
    // Python gives infinity or zero; a negative exponent means zero.
    const size_t e = digits.find_first_of("eE");
    value = e != std::string::npos && digits[e + 1] == '-' ? 0.0 : HUGE_VAL;
  } else if (error != std::errc()) {
    return std::nullopt;
  }
  return negative ? -value : value;
}

namespace filters {
namespace {

Text soft(Render& r, const Value& value) { return to_text(r, value); }

Value texts(Render& r, Text text) { return make_string(r, std::move(text)); }

Number numeric(Render& r, const Value& value, std::string_view what) {
  if (value.is_undefined()) r.fail_undefined(value);
  const auto number = number_of(value);
  if (!number) template_error("{} needs a number, not '{}'", what, type_name(value));
  return *number;
}

}  // namespace

Value upper(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "upper", {});
  return texts(r, jinja::upper(soft(r, value)));
}
Value lower(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "lower", {});
  return texts(r, jinja::lower(soft(r, value)));
}
Value capitalize(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "capitalize", {});
  return texts(r, jinja::capitalize(soft(r, value)));
}
Value string(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "string", {});
  return value.string() ? value : texts(r, soft(r, value));
}

// Unlike str.title: words begin after white space, '-', '(', '{', '[' and '<' only.
Value title(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "title", {});
  const Text in = soft(r, value);
  Text out;
  for (size_t begin = 0; begin < in.size();) {
    const auto separates = [&](size_t at) {
      const char32_t c = code_point_at(in.bytes, at);
      return is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
    };
    size_t end = begin;
    while (end < in.size() && separates(end) == separates(begin)) end = next_code_point(in.bytes, end);
    const size_t rest = next_code_point(in.bytes, begin);
    out.append(jinja::upper(in.slice(begin, rest)));
    out.append(jinja::lower(in.slice(rest, end)));
    begin = end;
  }
  return texts(r, std::move(out));
}

Value trim(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "trim", {"chars"});
  const std::string* chars = bound.bytes_or_none(0);
  const Text in = soft(r, value);
  if (chars) r.budget.step(in.size() * chars->size() / 4096);
  return texts(r, strip(in, chars, Side::both));
}

Value center(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "center", {"width"});
  return texts(r, justify(r, soft(r, value), bound.integer(0, 80), Text(" "), Side::both));
}

Value replace(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "replace", {"old", "new", "count"});
  const int64_t count = bound[2] && !bound[2]->is_none() ? bound.integer(2, -1) : -1;
  return texts(r, jinja::replace(r, soft(r, value), soft(r, bound.required(0)), soft(r, bound.required(1)), count));
}

Value escape(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "escape", {});
  const Text in = soft(r, value);
  Text out;
  for (size_t i = 0; i < in.size(); ++i) {
    const char c = in.bytes[i], mark = in.marks[i];
    if (c == '&')
      out.append("&amp;", mark);
    else if (c == '<')
      out.append("&lt;", mark);
    else if (c == '>')
      out.append("&gt;", mark);
    else if (c == '\'')
      out.append("&#39;", mark);
    else if (c == '"')
      out.append("&#34;", mark);
    else
      out.append(in, i, i + 1);
  }
  return texts(r, std::move(out));
}

Value indent(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "indent", {"width", "first", "blank"});
  if (value.is_undefined()) r.fail_undefined(value);
  if (!value.string()) template_error("indent needs a string, not '{}'", type_name(value));
  const Text prefix = bound[0] && bound[0]->string() ? bound[0]->text() : repeat(r, Text(" "), bound.integer(0, 4));
  const bool first = bound.flag(1, false), blank = bound.flag(2, false);
  Text in = value.text();
  in.append("\n");
  const std::vector<Text> lines = split_lines(r, in, false);
  Text out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.append("\n");
    if (i == 0 ? first : blank || lines[i].size() > 0) out.append(prefix);
    out.append(lines[i]);
    r.budget.text(out.size());
  }
  return texts(r, std::move(out));
}

Value truncate(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "truncate", {"length", "killwords", "end", "leeway"});
  const int64_t length = bound.integer(0, 255), leeway = bound[3] && !bound[3]->is_none() ? bound.integer(3, 5) : 5;
  const Text end = bound[2] ? bound.text(2) : Text("...");
  const auto end_length = static_cast<int64_t>(count_code_points(end.bytes));
  if (length < end_length) template_error("truncate: expected length >= {}, got {}", end_length, length);
  if (leeway < 0) template_error("truncate: expected leeway >= 0, got {}", leeway);
  if (length_of(r, value) <= length + leeway) return value;
  if (!value.string()) template_error("truncate needs a string, not '{}'", type_name(value));
  const Text& in = value.text();
  Text out = in.slice(0, offset_of_code_point(in.bytes, static_cast<size_t>(length - end_length)));
  if (!bound.flag(1, false)) {
    const size_t space = out.bytes.rfind(' ');
    if (space != std::string::npos) out = out.slice(0, space);
  }
  out.append(end);
  return texts(r, std::move(out));
}

Value wordcount(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "wordcount", {});
  const Text in = soft(r, value);
  int64_t words = 0;
  bool inside = false;
  for (size_t at = 0; at < in.size(); at = next_code_point(in.bytes, at)) {
    const bool word = is_word(code_point_at(in.bytes, at));
    words += word && !inside;
    inside = word;
  }
  return make_integer(words);
}

// Tags and comments removed, runs of white space made one space, as markupsafe does; entities stay as they are.
Value striptags(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "striptags", {});
  Text rest = soft(r, value);
  const auto remove = [&](std::string_view open, std::string_view close) {
    Text out;
    size_t done = 0;
    for (size_t begin; (begin = find_bytes(rest.bytes, open, done)) != std::string::npos;) {
      const size_t end = find_bytes(rest.bytes, close, begin);
      if (end == std::string::npos) break;
      out.append(rest, done, begin);
      done = end + close.size();
    }
    out.append(rest, done, rest.size());
    rest = std::move(out);
  };
  remove("<!--", "-->");
  remove("<", ">");
  Text out;
  for (const Text& word : split(r, rest, nullptr, -1)) {
    if (out.size() > 0) out.append(" ");
    out.append(word);
  }
  return texts(r, std::move(out));
}

Value urlencode(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "urlencode", {});
  const auto quote = [](const Text& in, bool query) {
    Text out;
    for (size_t i = 0; i < in.size(); ++i) {
      const auto c = static_cast<unsigned char>(in.bytes[i]);
      const bool plain = (c < 0x80 && std::isalnum(c) != 0) || c == '_' || c == '.' || c == '-' || c == '~' || (c == '/' && !query);
      if (plain)
        out.append(in, i, i + 1);
      else if (c == ' ' && query)
        out.append("+", in.marks[i]);
      else
        out.append(fmt::format("%{:02X}", c), in.marks[i]);
    }
    return out;
  };
  Text out;
  const auto add = [&](const Value& key, const Value& item) {
    if (out.size() > 0) out.append("&");
    out.append(quote(soft(r, key), true));
    out.append("=");
    out.append(quote(soft(r, item), true));
  };
  if (value.dict()) {
    for (const auto& [key, item] : value.dict()->entries) add(key, item);
  } else if (value.list() || value.is_undefined()) {
    for (const Value& pair : iterate(r, value)) {
      const std::vector<Value> parts = iterate(r, pair);
      if (parts.size() != 2) template_error("urlencode needs pairs, not a '{}' of {}", type_name(pair), parts.size());
      add(parts[0], parts[1]);
    }
  } else {
    out = quote(soft(r, value), false);
  }
  return texts(r, std::move(out));
}

Value format(Render& r, const Value& value, const Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.named.empty()) template_error("format takes either positional or named arguments");
  Value values = make_list(r, arguments.positional, ListKind::tuple);
  if (!arguments.named.empty()) {
    std::vector<std::pair<Value, Value>> entries;
    for (const auto& [name, item] : arguments.named) entries.emplace_back(make_string(r, Text(name)), item);
    values = make_dict(r, std::move(entries));
  }
  return texts(r, format_percent(r, soft(r, value), values));
}

Value filesizeformat(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "filesizeformat", {"binary"});
  const auto parsed = value.string() ? parse_python_float(value.text().bytes) : number_of(value) ? std::optional(number_of(value)->real) : std::nullopt;
  if (!parsed) template_error("filesizeformat needs a number");
  const bool binary = bound.flag(0, false);
  const double bytes = *parsed, base = binary ? 1024 : 1000;
  if (bytes == 1) return texts(r, Text("1 Byte"));
  if (bytes < base) return texts(r, Text(fmt::format("{} Bytes", static_cast<int64_t>(bytes))));
  static constexpr std::string_view kLetters = "kMGTPEZY";
  double unit = base * base;
  size_t i = 0;
  for (; i + 1 < kLetters.size() && bytes >= unit; ++i) unit *= base;
  const char letter = binary && i == 0 ? 'K' : kLetters[i];
  return texts(r, Text(fmt::format("{:.1f} {}{}", base * bytes / unit, letter, binary ? "iB" : "B")));
}

Value abs(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "abs", {});
  const Number number = numeric(r, value, "abs");
  if (number.is_float) return std::fabs(number.real);
  return number.integer < 0 ? -number.integer : number.integer;
}

Value to_float(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "float", {"default"});
  if (value.is_undefined()) r.fail_undefined(value);
  const Value fallback = bound[0] ? *bound[0] : Value(0.0);
  if (const auto number = number_of(value)) return number->is_float ? number->real : static_cast<double>(number->integer);
  const auto parsed = value.string() ? parse_python_float(value.text().bytes) : std::nullopt;
  return parsed ? Value(*parsed) : fallback;
}

namespace {
std::optional<Value> integer_of_real(double value) {
  if (std::isnan(value) || std::isinf(value)) return std::nullopt;
  if (std::fabs(value) >= 0x1p126) template_error("an integer is over 127 bits");
  return Value(static_cast<Integer>(value));
}
}  // namespace

Value to_int(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "int", {"default", "base"});
  if (value.is_undefined()) r.fail_undefined(value);
  const Value fallback = bound[0] ? *bound[0] : make_integer(0);
  if (const auto number = number_of(value)) {
    if (!number->is_float) return number->integer;
    if (std::isinf(number->real)) template_error("cannot convert float infinity to integer");
    return integer_of_real(number->real).value_or(fallback);
  }
  if (!value.string()) return fallback;
  const int64_t base = bound.integer(1, 10);
  if (base != 0 && (base < 2 || base > 36)) return fallback;
  if (const auto parsed = parse_python_integer(value.text().bytes, static_cast<int>(base))) return *parsed;
  const auto real = parse_python_float(value.text().bytes);
  return real ? integer_of_real(*real).value_or(fallback) : fallback;
}

namespace {

// Python's round(int, negative precision): half to even.
Value round_integer(Integer value, int64_t digits) {
  if (digits >= 0) return value;
  if (digits < -37) return Integer{0};
  Integer unit = 1;
  for (; digits < 0; ++digits) unit *= 10;
  Integer rest = value % unit;
  if (rest < 0) rest += unit;
  const Integer low = value - rest;
  const bool up = rest * 2 > unit || (rest * 2 == unit && (low / unit) % 2 != 0);
  return up ? low + unit : low;
}

}  // namespace

Value round(Render& r, const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "round", {"precision", "method"});
  const int64_t digits = bound.integer(0, 0);
  const std::string method = bound[1] ? bound.text(1).bytes : "common";
  if (method != "common" && method != "ceil" && method != "floor") template_error("method must be common, ceil or floor");
  const Number number = numeric(r, value, "round");
  if (method == "common") {
    if (!number.is_float) return round_integer(number.integer, digits);
    if (digits > 300 || !std::isfinite(number.real)) return number.real;
    if (digits >= 0) return *parse_python_float(fmt::format("{:.{}f}", number.real, static_cast<int>(digits)));
    const double unit = std::pow(10.0, static_cast<double>(-digits));
    return std::nearbyint(number.real / unit) * unit;
  }
  if (!std::isfinite(number.real) || std::llabs(digits) > 300) template_error("round: out of range");
  const double unit = std::pow(10.0, static_cast<double>(digits)), scaled = number.real * unit;
  const double whole = method == "ceil" ? std::ceil(scaled) : std::floor(scaled);
  return whole == 0 ? 0.0 : whole / unit;  // Python's ceil gives an int, so no negative zero
}

}  // namespace filters
}  // namespace frugal::text::jinja
