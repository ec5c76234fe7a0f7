// Python's three ways to format: "%s" % x, "{}".format(x), strftime.
#include <algorithm>
#include <cmath>
#include <ctime>

#include "text/template_filters.h"
#include "text/template_text.h"

namespace frugal::text::jinja {
namespace {

struct NumberStyle {
  char type = 'd';
  int64_t width = 0, precision = -1;
  bool left = false, zero = false, alternate = false;
  char sign = '-';  // '-': only negative, '+': always, ' ': a space for positive
};

std::string digits_in(Integer magnitude, int base, bool upper) {
  std::string out;
  do {
    const int digit = static_cast<int>(magnitude % base);
    out += static_cast<char>(digit < 10 ? '0' + digit : (upper ? 'A' : 'a') + digit - 10);
    magnitude /= base;
  } while (magnitude > 0);
  std::reverse(out.begin(), out.end());
  return out;
}

// Digits of a real without its sign, by printf's rules, which are Python's.
std::string real_digits(double value, const NumberStyle& style) {
  if (style.precision > 1000) template_error("a precision of {} is over the limit of 1000", style.precision);
  const int precision = style.precision < 0 ? 6 : static_cast<int>(style.precision);
  const bool upper = style.type < 'a';
  if (!std::isfinite(value)) return std::isnan(value) ? (upper ? "NAN" : "nan") : (upper ? "INF" : "inf");
  const char pattern[] = {'%', style.alternate ? '#' : '0', '.', '*', style.type, '\0'};
  std::string out(1400, '\0');
  const int size = std::snprintf(out.data(), out.size(), pattern, precision, std::fabs(value));
  out.resize(static_cast<size_t>(size));
  return out;
}

// Sign, prefix and digits with padding: spaces outside, zeros after sign and prefix.
Text padded_number(Render& r, std::string digits, bool negative, std::string_view prefix, const NumberStyle& style) {
  std::string head = negative ? "-" : style.sign == '-' ? "" : std::string(1, style.sign);
  head += prefix;
  const int64_t missing = style.width - static_cast<int64_t>(head.size() + digits.size());
  Text out;
  if (!style.left && !style.zero) out.append(repeat(r, Text(" "), missing));
  out.append(head);
  if (!style.left && style.zero) out.append(repeat(r, Text("0"), missing));
  out.append(digits);
  if (style.left) out.append(repeat(r, Text(" "), missing));
  return out;
}

Text formatted_integer(Render& r, Integer value, const NumberStyle& style) {
  const bool upper = style.type == 'X';
  const int base = style.type == 'x' || upper ? 16 : style.type == 'o' ? 8 : style.type == 'b' ? 2 : 10;
  std::string digits = digits_in(value < 0 ? -value : value, base, upper);
  if (style.precision > static_cast<int64_t>(digits.size())) {
    digits = repeat(r, Text("0"), style.precision - static_cast<int64_t>(digits.size())).bytes + digits;
  }
  const std::string_view prefix = !style.alternate || base == 10 ? "" : upper ? "0X" : base == 16 ? "0x" : base == 8 ? "0o" : "0b";
  return padded_number(r, std::move(digits), value < 0, prefix, style);
}

Text formatted_real(Render& r, double value, const NumberStyle& style) {
  NumberStyle used = style;
  if (!std::isfinite(value)) used.zero = false;
  return padded_number(r, real_digits(value, style), std::signbit(value) && !std::isnan(value), "", used);
}

Text cut(const Text& text, int64_t code_points) {
  return code_points < 0 ? text : text.slice(0, offset_of_code_point(text.bytes, static_cast<size_t>(code_points)));
}

// A decimal number in a format; clamped, beyond every limit that follows.
int64_t read_number(std::string_view text, size_t& at) {
  int64_t value = 0;
  for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) value = std::min<int64_t>(value * 10 + (text[at] - '0'), int64_t{1} << 40);
  return value;
}

class PercentFormatter {
 public:
  PercentFormatter(Render& r, const Text& format, const Value& values) : r_(r), format_(format), values_(values) {
    const ListData* list = values.list();
    is_tuple_ = list && list->kind == ListKind::tuple;
  }

  Text run() {
    const std::string& bytes = format_.bytes;
    while (at_ < bytes.size()) {
      const size_t percent = std::min(bytes.find('%', at_), bytes.size());
      out_.append(format_, at_, percent);
      at_ = percent + 1;
      if (percent < bytes.size()) conversion();
      r_.budget.text(out_.size());
      r_.budget.step();
    }
    const bool mapping = values_.dict() || (values_.list() && !is_tuple_) || values_.is_undefined();
    if (!mapping && used_ < (is_tuple_ ? values_.list()->items.size() : 1)) {
      template_error("not all arguments converted during string formatting");
    }
    return std::move(out_);
  }

 private:
  char peek() const {
    if (at_ >= format_.size()) template_error("incomplete format");
    return format_.bytes[at_];
  }

  Value next() {
    const size_t index = used_++;
    if (is_tuple_) {
      if (index >= values_.list()->items.size()) template_error("not enough arguments for format string");
      return values_.list()->items[index];
    }
    if (index > 0) template_error("not enough arguments for format string");
    return values_;
  }

  std::optional<Value> named() {
    if (peek() != '(') return std::nullopt;
    const size_t close = format_.bytes.find(')', at_);
    if (close == std::string::npos) template_error("incomplete format key");
    if (!values_.dict()) template_error("format requires a mapping");
    const std::string key = format_.bytes.substr(at_ + 1, close - at_ - 1);
    at_ = close + 1;
    const Value* found = dict_find(*values_.dict(), key);
    if (!found) template_error("format key '{}' is missing", printable(key));
    return *found;
  }

  int64_t number_or_star() {
    if (at_ < format_.size() && format_.bytes[at_] == '*') {
      ++at_;
      return index_of(next(), "format width");
    }
    return read_number(format_.bytes, at_);
  }

  void conversion() {
    const std::optional<Value> by_name = named();
    NumberStyle style;
    for (;; ++at_) {
      const char c = peek();
      if (c == '-')
        style.left = true;
      else if (c == '+')
        style.sign = '+';
      else if (c == ' ')
        style.sign = style.sign == '+' ? '+' : ' ';
      else if (c == '#')
        style.alternate = true;
      else if (c == '0')
        style.zero = true;
      else
        break;
    }
    style.width = number_or_star();
    if (style.width < 0) {
      style.left = true;
      style.width = -style.width;
    }
    if (peek() == '.') {
      ++at_;
      style.precision = std::max<int64_t>(number_or_star(), 0);
    }
    while (peek() == 'h' || peek() == 'l' || peek() == 'L') ++at_;
    style.type = peek();
    ++at_;
    if (style.type == '%') return out_.append("%");
    out_.append(converted(by_name ? *by_name : next(), style));
  }

  Text converted(const Value& value, const NumberStyle& style) {
    const auto number = number_of(value);
    switch (style.type) {
      case 'd':
      case 'i':
      case 'u': {
        if (!number) template_error("%{} format: a real number is required, not {}", style.type, type_name(value));
        if (number->is_float && !(std::fabs(number->real) < 0x1p126)) template_error("an integer is over 127 bits");
        return formatted_integer(r_, number->is_float ? static_cast<Integer>(number->real) : number->integer, style);
      }
      case 'x':
      case 'X':
      case 'o':
        if (!number || number->is_float) template_error("%{} format: an integer is required, not {}", style.type, type_name(value));
        return formatted_integer(r_, number->integer, style);
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        if (!number) template_error("must be real number, not {}", type_name(value));
        return formatted_real(r_, number->real, style);
      case 's': return justified(cut(to_text(r_, value), style.precision), style);
      case 'r':
      case 'a': {
        Text text;
        append_repr(r_, value, text);
        return justified(cut(text, style.precision), style);
      }
      case 'c': {
        if (value.string() && count_code_points(value.text().bytes) == 1) return justified(value.text(), style);
        const bool valid = number && !number->is_float && number->integer >= 0 && number->integer < 0xD800;
        if (!valid) template_error("%c requires int or char");
        std::string text;
        append_utf8(text, static_cast<char32_t>(number->integer));
        return justified(Text(text), style);
      }
      default: template_error("unsupported format character '{}'", printable(std::string(1, style.type)));
    }
  }

  Text justified(const Text& text, const NumberStyle& style) { return justify(r_, text, style.width, Text(" "), style.left ? Side::left : Side::right); }

  Render& r_;
  const Text& format_;
  const Value& values_;
  bool is_tuple_ = false;
  size_t at_ = 0, used_ = 0;
  Text out_;
};

std::string grouped(const std::string& digits, char separator) {
  size_t end = 0;
  while (end < digits.size() && digits[end] >= '0' && digits[end] <= '9') ++end;
  std::string out;
  for (size_t i = 0; i < end; ++i) {
    if (i > 0 && (end - i) % 3 == 0) out += separator;
    out += digits[i];
  }
  return out + digits.substr(end);
}

// One value by a format specification: [[fill]align][sign][#][0][width][,_][.precision][type].
class BraceSpec {
 public:
  explicit BraceSpec(const Text& spec) : spec_(spec) {
    const std::string& s = spec.bytes;
    size_t at = 0;
    const auto is_align = [&](size_t i) { return i < s.size() && std::string_view("<>=^").find(s[i]) != std::string_view::npos; };
    const size_t second = s.empty() ? 0 : next_code_point(s, 0);
    if (second > 0 && is_align(second)) {
      fill_ = spec.slice(0, second);
      align_ = s[second];
      at = second + 1;
    } else if (is_align(0)) {
      align_ = s[at++];
    }
    if (at < s.size() && std::string_view("+- ").find(s[at]) != std::string_view::npos) style_.sign = s[at++];
    if (at < s.size() && s[at] == '#') style_.alternate = true, ++at;
    if (at < s.size() && s[at] == '0') style_.zero = true, ++at;
    style_.width = read_number(s, at);
    if (at < s.size() && (s[at] == ',' || s[at] == '_')) separator_ = s[at++];
    if (at < s.size() && s[at] == '.') style_.precision = read_number(s, ++at);
    type_ = at < s.size() ? s[at++] : '\0';
    if (at != s.size()) template_error("Invalid format specifier '{}'", printable(s));
  }

  Text apply(Render& r, const Value& value) const {
    if (spec_.size() == 0) return to_text(r, value);
    const auto number = number_of(value);
    if (value.string() || (number && value.is<bool>() && type_ == '\0')) {
      if (type_ != '\0' && type_ != 's') bad_type(value);
      return place(r, cut(to_text(r, value), style_.precision), '<');
    }
    if (!number) template_error("unsupported format string passed to {}", type_name(value));
    NumberStyle style = style_;
    style.width = 0;
    style.zero = false;
    style.type = type_ == '\0' ? 'd' : type_;
    const bool integer_type = std::string_view("dxXob").find(style.type) != std::string_view::npos;
    Text text;
    if (!number->is_float && integer_type) {
      style.precision = -1;
      text = formatted_integer(r, number->integer, style);
    } else if (type_ == '%') {
      style.type = 'f';
      text = formatted_real(r, number->real * 100, style);
      text.append("%");
    } else if (std::string_view("eEfFgG").find(style.type) != std::string_view::npos) {
      text = formatted_real(r, number->real, style);
    } else if (type_ == '\0' && style.precision < 0) {
      text = Text((number->real < 0 || style.sign == '-' ? "" : std::string(1, style.sign)) + float_repr(number->real));
    } else {
      bad_type(value);
    }
    if (separator_) {
      const size_t sign = text.bytes.find_first_of("0123456789");
      if (sign != std::string::npos) text = Text(text.bytes.substr(0, sign) + grouped(text.bytes.substr(sign), separator_));
    }
    return place(r, text, '>');
  }

 private:
  [[noreturn]] void bad_type(const Value& value) const {
    template_error("Unknown format code '{}' for object of type '{}'", printable(std::string(1, type_)), type_name(value));
  }
  Text place(Render& r, const Text& text, char fallback) const {
    const char align = align_ ? align_ : style_.zero ? '=' : fallback;
    const Text fill = fill_.size() > 0 ? fill_ : Text(style_.zero ? "0" : " ");
    const auto length = static_cast<int64_t>(count_code_points(text.bytes));
    if (style_.width <= length) return text;
    const int64_t missing = style_.width - length;
    const size_t head = align == '=' && text.size() > 0 && std::string_view("+- ").find(text.bytes[0]) != std::string_view::npos ? 1 : 0;
    const int64_t before = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
    Text out = text.slice(0, head);
    out.append(repeat(r, fill, before));
    out.append(text, head, text.size());
    out.append(repeat(r, fill, missing - before));
    return out;
  }

  const Text& spec_;
  Text fill_;
  char align_ = 0, separator_ = 0, type_ = 0;
  NumberStyle style_;
};

}  // namespace

Text format_percent(Render& r, const Text& format, const Value& values) { return PercentFormatter(r, format, values).run(); }

Text format_braces(Render& r, const Text& format, const Arguments& arguments) {
  Text out;
  size_t automatic = 0;
  const std::string& bytes = format.bytes;
  for (size_t at = 0; at < bytes.size();) {
    r.budget.step();
    r.budget.text(out.size());
    const char c = bytes[at];
    if (c != '{' && c != '}') {
      const size_t end = std::min(bytes.find_first_of("{}", at), bytes.size());
      out.append(format, at, end);
      at = end;
      continue;
    }
    if (at + 1 < bytes.size() && bytes[at + 1] == c) {
      out.append(format, at, at + 1);
      at += 2;
      continue;
    }
    const size_t close = bytes.find('}', at);
    if (c == '}' || close == std::string::npos) template_error("Single '{}' encountered in format string", c);
    const size_t colon = std::min(bytes.find(':', at), close), bang = std::min(bytes.find('!', at), colon);
    const std::string field = bytes.substr(at + 1, bang - at - 1);
    const Text spec = colon < close ? format.slice(colon + 1, close) : Text();
    if (field.find_first_of(".[{") != std::string::npos || spec.bytes.find('{') != std::string::npos) {
      template_error("format field '{}': only plain names and positions are supported", printable(field));
    }
    const auto position = field.empty() ? std::optional<Integer>(static_cast<Integer>(automatic++)) : parse_python_integer(field, 10);
    const Value* value = nullptr;
    if (position && *position < static_cast<Integer>(arguments.positional.size()) && *position >= 0) {
      value = &arguments.positional[static_cast<size_t>(*position)];
    }
    for (const auto& [name, item] : arguments.named) {
      if (!position && name == field) value = &item;
    }
    if (!value) template_error("format field '{}' has no argument", printable(field));
    Value converted = *value;
    if (bang < colon) {
      Text text;
      if (bytes.substr(bang + 1, colon - bang - 1) == "r")
        append_repr(r, *value, text);
      else
        text = to_text(r, *value);
      converted = make_string(r, std::move(text));
    }
    out.append(BraceSpec(spec).apply(r, converted));
    at = close + 1;
  }
  return out;
}

// datetime.strftime of a local time without zone: %f is 000000, %z and %Z are empty, the rest is the C library's.
std::string format_time(Render& r, const std::string& format, int64_t unix_time) {
  if (format.find('\0') != std::string::npos) template_error("strftime: embedded null character");
  if (format.size() > 4096) template_error("strftime: a format of {} bytes is over the limit of 4096", format.size());
  std::string known;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      known += format[i];
      continue;
    }
    const char c = format[++i];
    if (c == 'f')
      known += "000000";
    else if (c != 'z' && c != 'Z')
      (known += '%') += c;
  }
  const std::time_t seconds = unix_time;
  std::tm local{};
  if (!localtime_r(&seconds, &local)) template_error("strftime: the time {} is out of range", unix_time);
  known.insert(0, 1, ' ');  // so that an empty result can be told from a full buffer
  std::string out(std::max<size_t>(256 * known.size(), 256), '\0');
  r.budget.text(out.size());
  out.resize(std::strftime(out.data(), out.size(), known.c_str(), &local));
  if (out.empty() || !valid_utf8(out)) template_error("strftime: cannot format '{}'", printable(format));
  return out.substr(1);
}

}  // namespace frugal::text::jinja
