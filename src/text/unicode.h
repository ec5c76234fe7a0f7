// UTF-8 and the few Unicode questions that tokenizers ask. Categories and normal forms come from utf8proc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace frugal::text {

inline constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // U+2581, SentencePiece's visible space

struct DecodedChar {
  uint32_t code = 0xFFFD;
  uint32_t length = 1;  // bytes consumed
  bool valid = false;
};

// The character that starts at `position` (< text.size()). Overlong forms, surrogates and values above U+10FFFF are not
// valid: then code is U+FFFD and length the "maximal subpart" (at least 1), as the Unicode standard advises.
DecodedChar decode_char(std::string_view text, size_t position);
std::vector<uint32_t> decode_chars(std::string_view text);  // all, an invalid part as U+FFFD

void append_utf8(std::string& out, uint32_t code);
std::string to_utf8(uint32_t code);
bool is_valid_utf8(std::string_view text);

// How many bytes at the end of `text` begin a character that later bytes could complete (0..3).
size_t unfinished_tail(std::string_view text);

// Each maximal invalid part becomes one U+FFFD.
std::string replace_invalid_utf8(std::string_view text);

// Consecutive [begin, end) ranges that are all valid or all invalid UTF-8; `bool` says which.
struct Utf8Run {
  size_t begin, end;
  bool valid;
};
std::vector<Utf8Run> utf8_runs(std::string_view text);

bool is_whitespace(uint32_t code);        // Unicode White_Space
bool is_numeric(uint32_t code);           // general category N*
bool is_punctuation(uint32_t code);       // general category P*
bool is_bert_punctuation(uint32_t code);  // P*, and all ASCII symbols
bool is_bert_control(uint32_t code);      // C* but tab, newline, carriage return
bool is_mark_nonspacing(uint32_t code);   // Mn
bool is_mark(uint32_t code);              // M*
bool is_cjk_ideograph(uint32_t code);     // the blocks that BERT separates
uint32_t to_lower(uint32_t code);         // simple mapping

enum class NormalForm { nfc, nfd, nfkc, nfkd };

// Normal form of the valid parts; invalid bytes are kept as they are. Linear time: a run of more than 1,024 combining
// marks, which canonical ordering would sort quadratically, is normalized in parts of that many.
std::string normalize(std::string_view text, NormalForm form);

// Lower case with the full mapping of U+0130, the one character whose lower case is two.
std::string lowercase(std::string_view text);

// GPT-2's reversible map of the 256 bytes to visible characters.
uint32_t byte_to_char(uint8_t byte);
int char_to_byte(uint32_t code);  // -1 when no byte maps there
std::string bytes_to_visible(std::string_view bytes);
// Back; characters outside the map are copied as their UTF-8.
std::string visible_to_bytes(std::string_view text);

}  // namespace frugal::text
