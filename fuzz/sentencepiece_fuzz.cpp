// tokenizer.model from anyone: a typed Error or a tokenizer that encodes and decodes.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/error.h"
#include "text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  try {
    const auto tokenizer = frugal::text::tokenizer_from_sentencepiece(std::as_bytes(std::span(data, size)), "fuzz");
    const auto ids = tokenizer->encode("Hello 123 <s> \xEF\xBC\xA1\xF0\x9F\x98\x80\xFF world", {.add_special = true, .parse_special = true});
    tokenizer->decode(ids);
    for (const int32_t id : ids) tokenizer->piece(id);
    tokenizer->encode(input.substr(0, 256));
  } catch (const frugal::Error&) {}
  return 0;
}
