// What a SentencePiece ModelProto says, as far as it matters for encoding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace frugal::text {

struct SentencePieceModel {
  struct Piece {
    std::string text;
    float score = 0;
    TokenKind kind = TokenKind::normal;
  };
  std::vector<Piece> pieces;
  // The defaults are those of the protobuf file.
  int32_t model_type = 1;  // 1 unigram, 2 BPE, 3 word, 4 char
  int32_t vocab_size = 0;  // 0: not given
  int32_t bos = 1, eos = 2, pad = -1;
  bool byte_fallback = false;
  bool whitespace_as_suffix = false;
  std::string charsmap;
  bool add_dummy_prefix = true, remove_extra_whitespaces = true, escape_whitespaces = true;
};

// Throws Error{corrupt_file} or Error{unsupported} (word and char models); `name` leads the message.
SentencePieceModel read_sentencepiece(std::span<const std::byte> bytes, std::string_view name);

}  // namespace frugal::text
