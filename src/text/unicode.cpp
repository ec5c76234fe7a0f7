#include "text/unicode.h"

#include <utf8proc.h>

#include <array>
#include <cstdlib>
#include <memory>

#include "base/error.h"

namespace frugal::text {

DecodedChar decode_char(std::string_view text, size_t position) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[position + i]); };
  const size_t left = text.size() - position;
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {lead, 1, true};
  if (lead < 0xC2 || lead > 0xF4) return {};
  const uint32_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte's range depends on the first: this excludes overlong forms, surrogates and > U+10FFFF.
  const uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  uint32_t code = lead & (0xFFu >> (length + 1));
  for (uint32_t i = 1; i < length; ++i) {
    if (i >= left) return {0xFFFD, i, false};
    const uint8_t next = byte(i);
    if (i == 1 ? (next < low || next > high) : (next & 0xC0) != 0x80) return {0xFFFD, i, false};
    code = code << 6 | (next & 0x3F);
  }
  return {code, length, true};
}

std::vector<uint32_t> decode_chars(std::string_view text) {
  std::vector<uint32_t> codes;
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_char(text, i);
    codes.push_back(c.code);
    i += c.length;
  }
  return codes;
}

void append_utf8(std::string& out, uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | code >> 6);
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | code >> 12);
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | code >> 18);
    out += static_cast<char>(0x80 | (code >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

std::string to_utf8(uint32_t code) {
  std::string out;
  append_utf8(out, code);
  return out;
}

bool is_valid_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_char(text, i);
    if (!c.valid) return false;
    i += c.length;
  }
  return true;
}

size_t unfinished_tail(std::string_view text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto lead = static_cast<uint8_t>(text[text.size() - back]);
    if ((lead & 0xC0) == 0x80) continue;
    const DecodedChar c = decode_char(text, text.size() - back);
    const size_t needed = lead < 0xC2 || lead > 0xF4 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    return !c.valid && c.length == back && needed > back ? back : 0;
  }
  return 0;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_char(text, i);
    if (c.valid) {
      out.append(text.substr(i, c.length));
    } else {
      out += "\xEF\xBF\xBD";
    }
    i += c.length;
  }
  return out;
}

std::vector<Utf8Run> utf8_runs(std::string_view text) {
  std::vector<Utf8Run> runs;
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_char(text, i);
    if (runs.empty() || runs.back().valid != c.valid) runs.push_back({i, i, c.valid});
    i += c.length;
    while (c.valid && i < text.size() && static_cast<uint8_t>(text[i]) < 0x80) ++i;  // most text
    runs.back().end = i;
  }
  return runs;
}

namespace {

utf8proc_category_t category(uint32_t code) { return utf8proc_category(static_cast<utf8proc_int32_t>(code)); }

}  // namespace

bool is_whitespace(uint32_t code) {
  return (code >= 0x9 && code <= 0xD) || code == 0x20 || code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
         code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

bool is_numeric(uint32_t code) {
  if (code < 0x80) return code >= '0' && code <= '9';
  const auto c = category(code);
  return c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
}

bool is_punctuation(uint32_t code) {
  const auto c = category(code);
  return c >= UTF8PROC_CATEGORY_PC && c <= UTF8PROC_CATEGORY_PO;
}

bool is_bert_punctuation(uint32_t code) {
  return (code >= 0x21 && code <= 0x2F) || (code >= 0x3A && code <= 0x40) || (code >= 0x5B && code <= 0x60) || (code >= 0x7B && code <= 0x7E) ||
         is_punctuation(code);
}

bool is_bert_control(uint32_t code) {
  if (code == '\t' || code == '\n' || code == '\r') return false;
  const auto c = category(code);
  return c == UTF8PROC_CATEGORY_CC || c == UTF8PROC_CATEGORY_CF || c == UTF8PROC_CATEGORY_CO || c == UTF8PROC_CATEGORY_CS || c == UTF8PROC_CATEGORY_CN;
}

bool is_mark_nonspacing(uint32_t code) { return category(code) == UTF8PROC_CATEGORY_MN; }

bool is_mark(uint32_t code) {
  const auto c = category(code);
  return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_MC || c == UTF8PROC_CATEGORY_ME;
}

bool is_cjk_ideograph(uint32_t code) {
  // The blocks of BERT's reference code; the odd start of extension E (U+2B920) is that of `tokenizers`.
  return (code >= 0x4E00 && code <= 0x9FFF) || (code >= 0x3400 && code <= 0x4DBF) || (code >= 0x20000 && code <= 0x2A6DF) ||
         (code >= 0x2A700 && code <= 0x2B73F) || (code >= 0x2B740 && code <= 0x2B81F) || (code >= 0x2B920 && code <= 0x2CEAF) ||
         (code >= 0xF900 && code <= 0xFAFF) || (code >= 0x2F800 && code <= 0x2FA1F);
}

uint32_t to_lower(uint32_t code) { return static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))); }

namespace {

// Normal form of one stretch of valid UTF-8.
void normalize_part(std::string_view part, utf8proc_option_t options, std::string& out) {
  utf8proc_uint8_t* result = nullptr;
  const auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(part.data()), static_cast<utf8proc_ssize_t>(part.size()), &result, options);
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(result, &std::free);
  if (length == UTF8PROC_ERROR_NOMEM) fail(ErrorKind::out_of_memory, "normalizing {} bytes of text: out of memory", part.size());
  if (length < 0) fail(ErrorKind::internal, "normalizing text: {}", utf8proc_errmsg(length));
  out.append(reinterpret_cast<const char*>(result), static_cast<size_t>(length));
}

constexpr size_t kMaxCombiningRun = 1024;

}  // namespace

std::string normalize(std::string_view text, NormalForm form) {
  int options = UTF8PROC_STABLE;
  if (form == NormalForm::nfc || form == NormalForm::nfkc) options |= UTF8PROC_COMPOSE;
  if (form == NormalForm::nfd || form == NormalForm::nfkd) options |= UTF8PROC_DECOMPOSE;
  if (form == NormalForm::nfkc || form == NormalForm::nfkd) options |= UTF8PROC_COMPAT;
  std::string out;
  out.reserve(text.size());
  for (const Utf8Run& run : utf8_runs(text)) {
    if (!run.valid) {
      out.append(text.substr(run.begin, run.end - run.begin));
      continue;
    }
    size_t begin = run.begin, marks = 0;
    for (size_t i = run.begin; i < run.end;) {
      const DecodedChar c = decode_char(text, i);
      marks = c.code >= 0x300 && is_mark(c.code) ? marks + 1 : 0;
      i += c.length;
      if (marks == kMaxCombiningRun) {
        normalize_part(text.substr(begin, i - begin), static_cast<utf8proc_option_t>(options), out);
        begin = i;
        marks = 0;
      }
    }
    normalize_part(text.substr(begin, run.end - begin), static_cast<utf8proc_option_t>(options), out);
  }
  return out;
}

std::string lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_char(text, i);
    if (!c.valid) {
      out.append(text.substr(i, c.length));
    } else if (c.code == 0x130) {
      out += "i\xCC\x87";
    } else {
      append_utf8(out, to_lower(c.code));
    }
    i += c.length;
  }
  return out;
}

namespace {

struct ByteMap {
  std::array<uint32_t, 256> to_char;
  std::array<int16_t, 0x144> to_byte;

  // Printable Latin-1 bytes stand for themselves; the other 68 follow from U+0100 on, in order.
  ByteMap() {
    to_byte.fill(-1);
    uint32_t next = 0x100;
    for (uint32_t b = 0; b < 256; ++b) {
      const bool visible = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      to_char[b] = visible ? b : next++;
      to_byte[to_char[b]] = static_cast<int16_t>(b);
    }
  }
};

const ByteMap& byte_map() {
  static const ByteMap map;
  return map;
}

}  // namespace

uint32_t byte_to_char(uint8_t byte) { return byte_map().to_char[byte]; }

int char_to_byte(uint32_t code) { return code < byte_map().to_byte.size() ? byte_map().to_byte[code] : -1; }

std::string bytes_to_visible(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char byte : bytes) append_utf8(out, byte_to_char(static_cast<uint8_t>(byte)));
  return out;
}

std::string visible_to_bytes(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_char(text, i);
    const int byte = c.valid ? char_to_byte(c.code) : -1;
    if (byte >= 0) {
      out += static_cast<char>(byte);
    } else {
      out.append(text.substr(i, c.length));
    }
    i += c.length;
  }
  return out;
}

}  // namespace frugal::text
