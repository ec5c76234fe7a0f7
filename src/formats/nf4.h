// NormalFloat 4 (QLoRA, arXiv 2305.14314): blocks of weights along the flattened matrix share their largest magnitude, each
// weight is the nearest of 16 quantiles of a normal distribution. Double quantization (section 3) stores the block magnitudes
// in 8 bits too: 4.5 bits per weight become 4.127 at block sizes 64 and 256. Layout and numbers as bitsandbytes has them
// (oracle of the test), whose FP4 is the same format with another table.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace frugal::formats {

struct Nf4Weight {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t block_size = 64;        // weights per magnitude, in row-major order; the last block may be short
  std::array<float, 16> table{};  // the value of each code, in units of the block's magnitude
  std::vector<uint8_t> codes;     // [ceil(rows * columns / 2)], even element in the high nibble

  bool double_quantized = true;
  std::vector<float> magnitudes;  // [blocks()] when not double_quantized, else empty
  // double_quantized: magnitude[b] = nested_table[magnitude_codes[b]] * nested_magnitudes[b / nested_block_size] + nested_offset
  std::vector<uint8_t> magnitude_codes;  // [blocks()]
  std::vector<float> nested_table;       // [256], ascending
  std::vector<float> nested_magnitudes;  // [ceil(blocks() / nested_block_size)]
  int64_t nested_block_size = 256;
  float nested_offset = 0.0f;

  int64_t blocks() const { return (rows * columns + block_size - 1) / block_size; }
  float magnitude(int64_t block) const;
  uint64_t storage_bytes() const;  // as written to disk, both tables included
};

// The 16 quantiles, ascending.
const std::array<float, 16>& nf4_table();
// 256 ascending values, dense around 0 (the signed dynamic map of 8-bit optimizers, arXiv 2110.02861).
const std::vector<float>& dynamic_table();

struct Nf4Options {
  int64_t block_size = 64;
  bool double_quantized = true;
};
// dense [rows, columns]. Throws Error{invalid_input} for an empty shape or block.
Nf4Weight encode_nf4(const float* dense, int64_t rows, int64_t columns, const Nf4Options& options);

// Throws Error{corrupt_file}; `name` leads the message. Readers call it once.
void validate(const Nf4Weight& weight, const std::string& name);
void decode_row(const Nf4Weight& weight, int64_t row, float* values);  // [columns]

}  // namespace frugal::formats
