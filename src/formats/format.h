// Weight storage formats: how a run of weights lies in bytes. Formats, not methods: a format knows bytes and codes, a
// method (quantize/) knows calibration data. One table; ids are GGUF's type names, for plain types safetensors' names.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace frugal::formats {

// The integer inside a block format, for kernels that multiply integers: w = scale[g] * code + minimum[g].
struct IntegerForm {
  int bits = 0;       // codes are in [0, 2^bits)
  int64_t group = 0;  // weights per (scale, minimum), a divisor of the block size
};

struct Format {
  std::string_view id;           // "F32", "BF16", "Q4_1", "Q6_K", ...
  int gguf_type;                 // ggml type id, -1: GGUF has none
  std::string_view safetensors;  // dtype name, "": safetensors has none
  int64_t block_weights;         // weights per block (1 for plain types)
  int64_t block_bytes;
  // Decode / encode `count` weights, a multiple of block_weights. Null where there is none (I32 has no decode; IQ2_XS has no
  // encode). `importance` is null or `count` non-negative weights of the squared error.
  void (*decode)(const std::byte* blocks, float* weights, int64_t count);
  void (*encode)(const float* weights, const float* importance, std::byte* blocks, int64_t count);
  IntegerForm integer;  // bits 0: not an integer format
  // Splits `count` weights into codes [count], scales and minimums [count / group]. Null when integer.bits is 0.
  void (*split)(const std::byte* blocks, uint8_t* codes, float* scales, float* minimums, int64_t count);

  double bits_per_weight() const { return 8.0 * static_cast<double>(block_bytes) / static_cast<double>(block_weights); }
};

std::span<const Format> format_table();
const Format* find_format(std::string_view id);    // nullptr: unknown
const Format& format_at(std::string_view id);      // throws Error{unsupported} with the nearest id
const Format* format_of_gguf_type(uint32_t type);  // nullptr: unknown or removed type
const Format* format_of_safetensors(std::string_view dtype);

// Bytes of `count` weights. Throws Error{corrupt_file} when count is not a multiple of the block or the size wraps.
uint64_t bytes_of(const Format& format, uint64_t count);

}  // namespace frugal::formats
