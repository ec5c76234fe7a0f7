// Sparse weights: which entries of a matrix are kept, and their values. Values are dense runs of the kept entries, row by
// row, in a plain format or as grouped integers (joint sparsity and quantization).
//   bitmap: one bit per weight. n_of_m: `n` kept in each group of `m` columns, positions as compact codes.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "formats/grouped.h"

namespace frugal::formats {

enum class SparsePattern { bitmap, n_of_m };

struct SparseWeight {
  int64_t rows = 0;
  int64_t columns = 0;
  SparsePattern pattern = SparsePattern::bitmap;
  int n = 2, m = 4;                        // n_of_m only; 2:4 (4 bits per 4 weights) and 4:8 (8 bits per 8 weights)
  std::vector<uint8_t> mask;               // bitmap, LSB first, [rows, ceil(columns / 8)] (both patterns in memory)
  std::string value_format = "F16";        // plain kept values: "F16", "BF16" or "F32"
  std::vector<float> values;               // kept values, row by row (empty when grouped.rows > 0)
  GroupedWeight grouped;                   // grouped.rows > 0: codes of the kept values. Its columns are the dense ones: a
                                           // scale belongs to a group of dense columns; codes of dropped entries are absent
                                           // on disk and ignored here.
  uint64_t storage_bytes() const;          // as written to disk
};

void validate(const SparseWeight& weight, const std::string& name);
void decode_row(const SparseWeight& weight, int64_t row, float* values);  // [columns]; dropped entries are 0
// Keeps the non-zero entries of `dense` [rows, columns].
SparseWeight make_sparse(const float* dense, int64_t rows, int64_t columns, const std::string& value_format);

}  // namespace frugal::formats
