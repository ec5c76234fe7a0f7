// Any text as adapter_config.json: an Error, or a configuration whose own file says the same.
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "io/peft.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace frugal;
  io::PeftConfig config;
  try {
    config = io::parse_peft_config(parse_json({reinterpret_cast<const char*>(data), size}, "fuzz", {size_t{1} << 20, 64}), "fuzz");
  } catch (const Error&) {
    return 0;
  }
  if (config.rank < 1 || config.rank > io::kMaxAdapterRank) std::abort();
  const Json written = io::to_json(config);
  const Json again = io::to_json(io::parse_peft_config(written, "written"));  // what we write we read
  if (written != again) std::abort();
  return 0;
}
