#include "eval/report_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace frugal::eval {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Length of the valid UTF-8 sequence at the front of `text` and its code point; length 1 and U+FFFD when it is not valid.
struct Decoded {
  size_t length;
  uint32_t code;
};

Decoded decode(std::string_view text) {
  constexpr Decoded kInvalid{1, 0xFFFD};
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {1, lead};
  const size_t length = lead >= 0xF0 && lead < 0xF5 ? 4 : lead >= 0xE0 && lead < 0xF0 ? 3 : lead >= 0xC2 && lead < 0xE0 ? 2 : 0;
  if (length == 0 || text.size() < length) return kInvalid;
  uint32_t code = lead & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return kInvalid;
    code = code << 6 | (byte(i) & 0x3F);
  }
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (code < kSmallest[length] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return kInvalid;
  return {length, code};
}

bool is_unsafe(uint32_t code) {
  const bool control = code < 0x20 || (code >= 0x7F && code < 0xA0);
  const bool reorders = (code >= 0x202A && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069) || code == 0x200E || code == 0x200F;
  return control || reorders || (code & 0xFFFE) == 0xFFFE || code == 0x2028 || code == 0x2029;
}

std::string grouped_thousands(std::string digits) {
  for (auto i = static_cast<int64_t>(digits.size()) - 3; i > 0; i -= 3) digits.insert(static_cast<size_t>(i), ",");
  return digits;
}

// Markdown's separator must not end a cell early.
std::string markdown_cell(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '|' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string padded(const std::string& text, size_t width, bool right) {
  const std::string spaces(width - std::min(width, character_count(text)), ' ');
  return right ? spaces + text : text + spaces;
}

std::string joined(const std::vector<std::string>& chain, const std::vector<std::string>& runtime, std::string_view separator,
                   std::string (*show)(const std::string&)) {
  std::string out;
  for (const auto* list : {&chain, &runtime}) {
    for (const std::string& step : *list) {
      if (!out.empty()) out += separator;
      out += show(step);
    }
  }
  return out;
}

}  // namespace

std::string clean(std::string_view text, size_t max_characters) {
  std::string out;
  size_t characters = 0;
  while (!text.empty()) {
    if (characters++ == max_characters) return out + "\xE2\x80\xA6";
    const Decoded next = decode(text);
    if (next.code == 0xFFFD || is_unsafe(next.code)) {
      out += kReplacement;
    } else {
      out += text.substr(0, next.length);
    }
    text.remove_prefix(next.length);
  }
  return out;
}

std::string escaped(std::string_view text, size_t max_characters) {
  std::string out;
  for (const char c : clean(text, max_characters)) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  return out;
}

size_t character_count(std::string_view utf8) {
  size_t count = 0;
  for (const char c : utf8) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return count;
}

std::string format_number(double value) {
  const double size = std::abs(value);
  if (value == 0) return "0";
  if (size >= 1e6 || size < 1e-4) return fmt::format("{:.2e}", value);
  const int digits = std::max(0, 2 - static_cast<int>(std::floor(std::log10(size))));
  std::string text = fmt::format("{:.{}f}", value, digits);
  return digits == 0 && value >= 1000 ? grouped_thousands(text) : text;
}

std::string format_bytes(double bytes) {
  const char* unit = bytes >= 1e9 ? "GB" : bytes >= 1e6 ? "MB" : bytes >= 1e3 ? "kB" : "B";
  const double scale = bytes >= 1e9 ? 1e9 : bytes >= 1e6 ? 1e6 : bytes >= 1e3 ? 1e3 : 1;
  return fmt::format("{} {}", format_number(bytes / scale), unit);
}

std::string format_rate(double per_second) { return format_number(per_second); }

std::string format_seconds(double seconds) {
  if (seconds < 10) return fmt::format("{:.1f} s", seconds);
  if (seconds < 120) return fmt::format("{:.0f} s", seconds);
  const auto whole = std::llround(std::min(seconds, 1e12));
  return whole < 7200 ? fmt::format("{} min {} s", whole / 60, whole % 60) : fmt::format("{} h {} min", whole / 3600, whole / 60 % 60);
}

std::string format_ratio(double ln_ratio) {
  const double ratio = std::exp(ln_ratio);
  if (ratio >= 1e6) return fmt::format("\xC3\x97{:.0e}", ratio);
  return fmt::format("\xC3\x97{}", ratio >= 100 ? format_number(ratio) : ratio >= 10 ? fmt::format("{:.1f}", ratio) : fmt::format("{:.3f}", ratio));
}

std::string markdown_table(const std::vector<std::vector<std::string>>& lines, const std::vector<bool>& numeric) {
  std::string out;
  std::vector<size_t> widths(numeric.size(), 3);
  for (const auto& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], character_count(markdown_cell(line[i])));
  }
  for (size_t l = 0; l < lines.size(); ++l) {
    for (size_t i = 0; i < numeric.size(); ++i) out += "| " + padded(markdown_cell(lines[l][i]), widths[i], numeric[i]) + " ";
    out += "|\n";
    if (l > 0) continue;
    for (size_t i = 0; i < numeric.size(); ++i) out += "|" + std::string(widths[i] + 1, '-') + (numeric[i] ? ":" : "-");
    out += "|\n";
  }
  return out;
}

std::string short_chain(const std::vector<std::string>& chain, const std::vector<std::string>& runtime) {
  return joined(chain, runtime, " + ", [](const std::string& step) {
    const size_t colon = step.find(':');
    std::string out = step.substr(0, colon);
    for (size_t begin = colon; begin != std::string::npos;) {
      const size_t equals = step.find('=', begin);
      const size_t comma = step.find(',', begin + 1);
      if (equals == std::string::npos) break;
      out += begin == colon ? " " : "/";
      out += step.substr(equals + 1, comma == std::string::npos ? comma : comma - equals - 1);
      begin = comma;
    }
    return out;
  });
}

std::string full_chain(const std::vector<std::string>& chain, const std::vector<std::string>& runtime) {
  return joined(chain, runtime, " \xE2\x86\x92 ", [](const std::string& step) { return step; });
}

}  // namespace frugal::eval
