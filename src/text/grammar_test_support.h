// Shared by the tests of grammars: whole texts, vocabularies, and walks that a seed decides.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/rng.h"
#include "io/gguf.h"
#include "text/grammar/grammar.h"
#include "text/grammar/matcher.h"
#include "text/grammar/token_bytes.h"
#include "text/tokenizer_test_support.h"

namespace frugal::text {

// The 256 bytes and an end.
inline std::shared_ptr<const TokenBytes> byte_vocabulary() {
  static const auto tokens = [] {
    std::vector<std::string> texts;
    for (int b = 0; b < 256; ++b) texts.emplace_back(1, static_cast<char>(b));
    texts.emplace_back();
    return std::make_shared<const TokenBytes>(std::move(texts), std::vector<int32_t>{256});
  }();
  return tokens;
}

inline bool accepts(const std::shared_ptr<const Grammar>& grammar, std::string_view text) {
  GrammarMatcher matcher(grammar, byte_vocabulary());
  return matcher.accept_bytes(text) && matcher.can_end();
}

// "<kind>: <message>", or "" if there was no error.
template <typename Action>
std::string error_of(Action&& action) {
  try {
    action();
  } catch (const Error& error) {
    return std::string(to_string(error.kind())) + ": " + error.what();
  }
  return "";
}

inline bool has_bit(const std::vector<uint32_t>& bits, int32_t id) { return bits[static_cast<size_t>(id) / 32] >> id % 32 & 1; }

inline std::vector<int32_t> ids_of(const std::vector<uint32_t>& bits) {
  std::vector<int32_t> ids;
  for (size_t word = 0; word < bits.size(); ++word) {
    for (uint32_t rest = bits[word]; rest != 0; rest &= rest - 1) ids.push_back(static_cast<int32_t>(word * 32) + __builtin_ctz(rest));
  }
  return ids;
}

}  // namespace frugal::text
