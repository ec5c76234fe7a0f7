// Any bytes as a Parquet file: an Error, or rows, of which no more come than the footer says.
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "io/parquet.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace frugal;
  constexpr uint64_t kMostRows = 1 << 12;  // a run of equal values may stand for billions
  try {
    io::ParquetReader reader(std::as_bytes(std::span(data, size)), "fuzz", {"text", "n", "messages"});
    Json row;
    uint64_t rows = 0;
    while (rows < kMostRows && reader.next(row)) {
      ++rows;
      if (!row.is_object()) std::abort();
    }
    if (rows > reader.rows()) std::abort();
  } catch (const Error&) {}
  return 0;
}
