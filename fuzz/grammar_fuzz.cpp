// A grammar of some kind and a text that is walked through it: the first byte is the kind, then the source up to a NUL byte, then
// the text. Nothing but Error may leave, and the mask must say of the text's bytes what the matcher does.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "text/grammar/matcher.h"

namespace {

std::shared_ptr<const frugal::text::TokenBytes> bytes() {
  std::vector<std::string> texts;
  for (int b = 0; b < 256; ++b) texts.emplace_back(1, static_cast<char>(b));
  texts.emplace_back();
  return std::make_shared<const frugal::text::TokenBytes>(std::move(texts), std::vector<int32_t>{256});
}

std::shared_ptr<const frugal::text::Grammar> compiled(uint8_t kind, std::string_view source) {
  using frugal::text::Grammar;
  switch (kind % 3) {
    case 0: return Grammar::from_gbnf(source);
    case 1: return Grammar::from_regex(source);
    default: return Grammar::from_json_schema_text(source);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static const auto tokens = bytes();
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t nul = input.find('\0');
  try {
    frugal::text::GrammarMatcher matcher(compiled(data[0], input.substr(0, nul)), tokens);
    std::vector<uint32_t> bits(9);
    for (const char c : nul == std::string_view::npos ? std::string_view() : input.substr(nul + 1)) {
      matcher.allowed(bits);
      const auto byte = static_cast<uint8_t>(c);
      const bool expected = bits[byte / 32] >> byte % 32 & 1;
      if (matcher.accept(byte) != expected) std::abort();
      if (!expected) break;
    }
    matcher.forced();
  } catch (const frugal::Error&) {}
  return 0;
}
