// Any bytes as a GGUF file: an Error or a file whose every tensor byte can be read.
#include <cstdint>

#include "base/error.h"
#include "formats/format.h"
#include "io/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace frugal;
  try {
    const io::GgufFile file = io::read_gguf(std::as_bytes(std::span(data, size)), "fuzz");
    unsigned sum = 0;
    for (const TensorView& view : file.tensors) {
      for (const std::byte byte : view.bytes) sum += static_cast<unsigned>(byte);
    }
    for (const auto& [key, value] : file.metadata.values()) sum += static_cast<unsigned>(to_string(value).size());
    volatile unsigned keep = sum;
    (void)keep;
  } catch (const Error&) {}
  return 0;
}
