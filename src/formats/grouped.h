// Grouped integers, our own general format: 1 to 8 bits, any group size (the last group of a row may be ragged), with or
// without zero point. Rows are packed as compressed-tensors' pack-quantized does: codes LSB first, dense across 32-bit
// words, each row starting at a word.
//   w[r, c] = (code[r, c] - zero[r, g]) * scale[r, g],   g = group_index[c], or c / group_size when that is empty
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace frugal::formats {

struct GroupedWeight {
  int64_t rows = 0;
  int64_t columns = 0;
  int bits = 4;
  int64_t group_size = 0;            // >= 1; a whole row: == columns
  bool symmetric = false;            // every zero is 2^(bits-1) and not stored
  bool float_zeros = false;          // zeros are not integers (hqq); stored in scale_format
  std::string scale_format = "F16";  // what `scales` (and float zeros) are stored as; the values are exact in it
  std::vector<uint32_t> codes;       // [rows, words_per_row()]
  std::vector<float> scales;         // [rows, groups()]
  std::vector<float> zeros;          // [rows, groups()], in units of a code; may be empty when symmetric
  std::vector<int32_t> group_index;  // [columns] or empty (act-order without static groups)

  int64_t groups() const { return group_size > 0 ? (columns + group_size - 1) / group_size : 0; }
  int64_t words_per_row() const { return (columns * bits + 31) / 32; }
  int64_t group_of(int64_t column) const { return group_index.empty() ? column / group_size : group_index[static_cast<size_t>(column)]; }
  float zero_of(int64_t row, int64_t group) const {
    return zeros.empty() ? static_cast<float>(1 << (bits - 1)) : zeros[static_cast<size_t>(row * groups() + group)];
  }
  uint64_t storage_bytes() const;  // codes + scales + stored zeros + group index, as written to disk
};

// Throws Error{corrupt_file} when a size, a range or an index does not fit; `name` leads the message. Readers call it once.
void validate(const GroupedWeight& weight, const std::string& name);

// A weight of this shape with all codes, scales and (unless symmetric) zeros 0. Throws Error{invalid_input} for a shape that
// validate() would refuse.
struct GroupedShape {
  int64_t rows = 0;
  int64_t columns = 0;
  int bits = 4;
  int64_t group_size = 0;
  bool symmetric = false;
};
GroupedWeight make_grouped(const GroupedShape& shape);

void unpack_row(const GroupedWeight& weight, int64_t row, uint8_t* codes);  // [columns]
void pack_row(GroupedWeight& weight, int64_t row, const uint8_t* codes);    // [columns]
void decode_row(const GroupedWeight& weight, int64_t row, float* values);   // [columns]

// `count` codes of `bits` bits (1 to 8) in ceil(count * bits / 32) words, LSB first, dense. Codes must fit; padding is 0.
void pack_codes(const uint8_t* codes, int64_t count, int bits, uint32_t* words);
void unpack_codes(const uint32_t* words, int64_t count, int bits, uint8_t* codes);

// Integer zeros as compressed-tensors stores them: [ceil(rows * bits / 32), groups()], packed down the rows. unpack_zeros
// sets weight.zeros; throws Error{corrupt_file} when the number of words does not fit.
std::vector<uint32_t> pack_zeros(const GroupedWeight& weight);
void unpack_zeros(const std::vector<uint32_t>& words, GroupedWeight& weight, const std::string& name);

}  // namespace frugal::formats
