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
  int64_t group_size = 0;              // >= 1; a whole row: == columns
  bool symmetric = false;              // every zero is 2^(bits-1) and not stored
  bool float_zeros = false;            // zeros are not integers (hqq); stored in scale_format
  std::string scale_format = "F16";    // what `scales` (and float zeros) are stored as; the values are exact in it
  std::vector<uint32_t> codes;         // [rows, words_per_row()]
  std::vector<float> scales;           // [rows, groups()]
  std::vector<float> zeros;            // [rows, groups()], in units of a code
  std::vector<int32_t> group_index;    // [columns] or empty (act-order without static groups)

  int64_t groups() const { return group_size > 0 ? (columns + group_size - 1) / group_size : 0; }
  int64_t words_per_row() const { return (columns * bits + 31) / 32; }
  int64_t group_of(int64_t column) const { return group_index.empty() ? column / group_size : group_index[static_cast<size_t>(column)]; }
  uint64_t storage_bytes() const;      // codes + scales + stored zeros + group index, as written to disk
};

// Throws Error{corrupt_file} when a size, a range or an index does not fit; `name` leads the message. Readers call it once.
void validate(const GroupedWeight& weight, const std::string& name);

void unpack_row(const GroupedWeight& weight, int64_t row, uint8_t* codes);        // [columns]
void pack_row(GroupedWeight& weight, int64_t row, const uint8_t* codes);          // [columns]
void decode_row(const GroupedWeight& weight, int64_t row, float* values);         // [columns]

}  // namespace frugal::formats
