#include "text/template_text.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "text/template_render.h"

namespace frugal::text::jinja {

bool valid_utf8(std::string_view text) {
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  for (size_t i = 0; i < text.size();) {
    if (bytes[i] < 0x80) {
      ++i;
      continue;
    }
    utf8proc_int32_t c;
    const auto used = utf8proc_iterate(bytes + i, static_cast<utf8proc_ssize_t>(std::min<size_t>(text.size() - i, 4)), &c);
    if (used <= 0) return false;
    i += static_cast<size_t>(used);
  }
  return true;
}

namespace {
bool continues(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }
utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }
}  // namespace

size_t next_code_point(std::string_view text, size_t begin) {
  do ++begin;
  while (begin < text.size() && continues(text[begin]));
  return begin;
}

size_t previous_code_point(std::string_view text, size_t end) {
  do --end;
  while (end > 0 && continues(text[end]));
  return end;
}

char32_t code_point_at(std::string_view text, size_t begin) {
  const auto lead = static_cast<unsigned char>(text[begin]);
  if (lead < 0x80) return lead;
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  char32_t c = lead & (0xFFu >> (length + 1));
  for (size_t i = 1; i < length && begin + i < text.size(); ++i) c = (c << 6) | (static_cast<unsigned char>(text[begin + i]) & 0x3Fu);
  return c;
}

size_t count_code_points(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return !continues(c); }));
}

size_t offset_of_code_point(std::string_view text, size_t index) {
  if (index >= text.size()) return text.size();
  size_t offset = 0;
  for (; index > 0 && offset < text.size(); --index) offset = next_code_point(text, offset);
  return offset;
}

void append_utf8(std::string& out, char32_t code_point) {
  utf8proc_uint8_t buffer[4];
  const auto used = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), buffer);
  out.append(reinterpret_cast<const char*>(buffer), static_cast<size_t>(used));
}

size_t find_bytes(std::string_view text, std::string_view what, size_t from) {
  if (from > text.size()) return std::string::npos;
  if (what.empty()) return from;
  const void* found = memmem(text.data() + from, text.size() - from, what.data(), what.size());
  return found ? static_cast<size_t>(static_cast<const char*>(found) - text.data()) : std::string::npos;
}

bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}
bool is_alpha(char32_t c) {
  const auto k = category(c);
  return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT || k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_LO;
}
bool is_decimal(char32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }
bool is_numeric(char32_t c) {
  const auto k = category(c);
  return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}
bool is_upper(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LU; }
bool is_lower(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LL || c == 0xAA || c == 0xBA; }
bool is_printable(char32_t c) {
  if (c == ' ') return true;
  const auto k = category(c);
  return !(k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_CS || k == UTF8PROC_CATEGORY_CO || k == UTF8PROC_CATEGORY_CN ||
           k == UTF8PROC_CATEGORY_ZL || k == UTF8PROC_CATEGORY_ZP || k == UTF8PROC_CATEGORY_ZS);
}
bool is_word(char32_t c) { return c == '_' || is_alpha(c) || is_numeric(c); }

Text strip(const Text& text, const std::string* chars, Side side) {
  const std::string& bytes = text.bytes;
  const auto drop = [&](size_t at, size_t end) {
    if (!chars) return is_space(code_point_at(bytes, at));
    return !chars->empty() && chars->find(bytes.data() + at, 0, end - at) != std::string::npos;
  };
  size_t begin = 0, end = bytes.size();
  while (side != Side::right && begin < end) {
    const size_t next = next_code_point(bytes, begin);
    if (!drop(begin, next)) break;
    begin = next;
  }
  while (side != Side::left && end > begin) {
    const size_t previous = previous_code_point(bytes, end);
    if (!drop(previous, end)) break;
    end = previous;
  }
  return text.slice(begin, end);
}

namespace {

// What the sharp s becomes, the one letter whose upper case is two: beyond Unicode, so that no letter is taken for it.
constexpr char32_t kUpperSharpS = 0x110000, kTitleSharpS = 0x110001;

// f(code point) gives the new code point; the mark of the old one is kept.
template <typename F>
Text map_code_points(const Text& text, F f) {
  Text out;
  for (size_t begin = 0; begin < text.size();) {
    const char32_t c = code_point_at(text.bytes, begin);
    std::string mapped;
    const char32_t to = f(c);
    if (to == kUpperSharpS)
      mapped = "SS";
    else if (to == kTitleSharpS)
      mapped = "Ss";
    else
      append_utf8(mapped, to);
    out.append(mapped, text.marks[begin]);
    begin = next_code_point(text.bytes, begin);
  }
  return out;
}

char32_t to_upper(char32_t c) {
  if (c == U'\u00DF') return kUpperSharpS;
  return static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c)));
}
char32_t to_title(char32_t c) { return c == U'\u00DF' ? kTitleSharpS : to_upper(c); }
char32_t to_lower(char32_t c) { return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))); }

}  // namespace

Text upper(const Text& text) { return map_code_points(text, to_upper); }
Text lower(const Text& text) { return map_code_points(text, to_lower); }

Text capitalize(const Text& text) {
  bool first = true;
  return map_code_points(text, [&](char32_t c) { return std::exchange(first, false) ? to_title(c) : to_lower(c); });
}

Text title(const Text& text) {
  bool inside = false;
  return map_code_points(text, [&](char32_t c) {
    const bool was_inside = std::exchange(inside, is_upper(c) || is_lower(c) || category(c) == UTF8PROC_CATEGORY_LT);
    return was_inside ? to_lower(c) : to_title(c);
  });
}

Text swap_case(const Text& text) {
  return map_code_points(text, [](char32_t c) { return is_upper(c) ? to_lower(c) : is_lower(c) ? to_upper(c) : c; });
}

Text replace(Render& r, const Text& text, const Text& from, const Text& to, int64_t count) {
  Text out;
  size_t done = 0, at = 0;
  r.budget.step(text.size() / 4096);
  for (; count != 0; --count) {
    const size_t found = find_bytes(text.bytes, from.bytes, at);
    if (found == std::string::npos) break;
    r.budget.step();
    out.append(text, done, found);
    out.append(to);
    r.budget.text(out.size());
    done = found + from.size();
    at = done;
    if (from.size() > 0) continue;
    if (done == text.size()) break;
    at = next_code_point(text.bytes, done);
  }
  out.append(text, done, text.size());
  return out;
}

namespace {

std::vector<Text> split_spaces(Render& r, const Text& text, int64_t limit) {
  std::vector<Text> out;
  const std::string& bytes = text.bytes;
  size_t at = 0;
  const auto skip = [&](bool spaces) {
    while (at < bytes.size() && is_space(code_point_at(bytes, at)) == spaces) at = next_code_point(bytes, at);
  };
  for (skip(true); at < bytes.size(); skip(true)) {
    r.budget.step();
    const size_t begin = at;
    if (limit >= 0 && static_cast<int64_t>(out.size()) == limit) {
      out.push_back(strip(text.slice(begin, bytes.size()), nullptr, Side::right));
      break;
    }
    skip(false);
    out.push_back(text.slice(begin, at));
  }
  return out;
}

}  // namespace

std::vector<Text> split(Render& r, const Text& text, const std::string* separator, int64_t limit) {
  r.budget.step(text.size() / 4096);
  if (!separator) return split_spaces(r, text, limit);
  if (separator->empty()) template_error("empty separator");
  std::vector<Text> out;
  size_t begin = 0;
  for (; limit != 0; --limit) {
    const size_t found = find_bytes(text.bytes, *separator, begin);
    if (found == std::string::npos) break;
    r.budget.step();
    out.push_back(text.slice(begin, found));
    begin = found + separator->size();
  }
  out.push_back(text.slice(begin, text.size()));
  return out;
}

std::vector<Text> split_right(Render& r, const Text& text, const std::string* separator, int64_t limit) {
  r.budget.step(text.size() * (separator ? separator->size() : 1) / 4096);  // rfind is quadratic at worst
  if (limit < 0) return split(r, text, separator, limit);
  std::vector<Text> out;
  const std::string& bytes = text.bytes;
  size_t end = bytes.size();
  if (!separator) {
    end = strip(text, nullptr, Side::right).size();
    while (end > 0) {
      size_t begin = end;
      r.budget.step();
      if (static_cast<int64_t>(out.size()) == limit) {
        out.push_back(strip(text.slice(0, end), nullptr, Side::left));
        break;
      }
      while (begin > 0 && !is_space(code_point_at(bytes, previous_code_point(bytes, begin)))) begin = previous_code_point(bytes, begin);
      out.push_back(text.slice(begin, end));
      while (begin > 0 && is_space(code_point_at(bytes, previous_code_point(bytes, begin)))) begin = previous_code_point(bytes, begin);
      end = begin;
    }
    if (!out.empty() && out.back().size() == 0) out.pop_back();
  } else {
    if (separator->empty()) template_error("empty separator");
    for (; limit > 0 && end >= separator->size(); --limit) {
      const size_t found = bytes.rfind(*separator, end - separator->size());
      if (found == std::string::npos) break;
      r.budget.step();
      out.push_back(text.slice(found + separator->size(), end));
      end = found;
    }
    out.push_back(text.slice(0, end));
  }
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<Text> split_lines(Render& r, const Text& text, bool keep_ends) {
  std::vector<Text> out;
  r.budget.step(text.size() / 4096);
  for (size_t begin = 0; begin < text.size();) {
    r.budget.step();
    size_t end = begin, next = text.size();
    for (; end < text.size(); end = next_code_point(text.bytes, end)) {
      const char32_t c = code_point_at(text.bytes, end);
      if ((c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029) {
        next = next_code_point(text.bytes, end);
        if (c == '\r' && next < text.size() && text.bytes[next] == '\n') ++next;
        break;
      }
    }
    out.push_back(text.slice(begin, keep_ends ? next : end));
    begin = next;
  }
  return out;
}

Text repeat(Render& r, const Text& text, int64_t count) {
  Text out;
  if (count <= 0 || text.size() == 0) return out;
  size_t bytes;
  if (__builtin_mul_overflow(text.size(), static_cast<size_t>(count), &bytes)) bytes = SIZE_MAX;
  r.budget.text(bytes);
  for (int64_t i = 0; i < count; ++i) out.append(text);
  return out;
}

Text justify(Render& r, const Text& text, int64_t width, const Text& fill, Side text_side) {
  const auto length = static_cast<int64_t>(count_code_points(text.bytes));
  if (width <= length) return text;
  const int64_t missing = width - length;
  int64_t before = text_side == Side::left ? 0 : missing;
  if (text_side == Side::both) before = missing / 2 + (missing & width & 1);
  Text out = repeat(r, fill, before);
  out.append(text);
  out.append(repeat(r, fill, missing - before));
  return out;
}

Text zero_fill(Render& r, const Text& text, int64_t width) {
  const size_t sign = text.size() > 0 && (text.bytes[0] == '+' || text.bytes[0] == '-') ? 1 : 0;
  Text out = text.slice(0, sign);
  out.append(justify(r, text.slice(sign, text.size()), width - static_cast<int64_t>(sign), Text("0"), Side::right));
  return out;
}

void append_string_repr(const Text& text, Text& out) {
  const bool has_single = text.bytes.find('\'') != std::string::npos;
  const char quote = has_single && text.bytes.find('"') == std::string::npos ? '"' : '\'';
  out.append(std::string_view(&quote, 1));
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = next_code_point(text.bytes, begin);
    const char32_t c = code_point_at(text.bytes, begin);
    const char mark = text.marks[begin];
    if (c == static_cast<unsigned char>(quote) || c == '\\') {
      out.append("\\", mark);
      out.append(text, begin, end);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out.append(c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t", mark);
    } else if (is_printable(c)) {
      out.append(text, begin, end);
    } else {
      const auto code = static_cast<uint32_t>(c);
      out.append(code < 0x100 ? fmt::format("\\x{:02x}", code) : code < 0x10000 ? fmt::format("\\u{:04x}", code) : fmt::format("\\U{:08x}", code), mark);
    }
    begin = end;
  }
  out.append(std::string_view(&quote, 1));
}

}  // namespace frugal::text::jinja
