// Sparse weights: which entries of a matrix are kept, and their values. Values are dense runs of the kept entries, row by
// row, in a plain format or as grouped integers (joint sparsity and quantization).
//   bitmap: one bit per weight. n_of_m: `n` kept in each group of `m` columns, positions as compact codes.
#pragma once

#include <cstddef>
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
  int n = 2, m = 4;                  // n_of_m only; 2:4 (4 bits per 4 weights) and 4:8 (8 bits per 8 weights)
  std::vector<uint8_t> mask;         // bitmap, LSB first, [rows, ceil(columns / 8)] (both patterns in memory)
  std::string value_format = "F16";  // plain kept values: "F16", "BF16" or "F32"
  std::vector<float> values;         // kept values, row by row (empty when grouped.rows > 0)
  GroupedWeight grouped;             // grouped.rows > 0: codes of the kept values. Its columns are the dense ones: a
                                     // scale belongs to a group of dense columns; codes of dropped entries are absent
                                     // on disk and ignored here.
  std::vector<int64_t> row_offsets;  // [rows], number of entries kept above each row: index_rows() fills it. Empty is
                                     // allowed, but then decode_row counts the mask above its row
  bool kept(int64_t row, int64_t column) const { return (mask[static_cast<size_t>(row * mask_stride() + column / 8)] >> (column % 8)) & 1; }
  int64_t mask_stride() const { return (columns + 7) / 8; }
  uint64_t storage_bytes() const;  // as written to disk
};

void validate(const SparseWeight& weight, const std::string& name);
void decode_row(const SparseWeight& weight, int64_t row, float* values);  // [columns]; dropped entries are 0
void index_rows(SparseWeight& weight);
// Keeps the non-zero entries of `dense` [rows, columns].
SparseWeight make_sparse(const float* dense, int64_t rows, int64_t columns, const std::string& value_format);

// Keeps the entries whose byte in `keep` [rows, columns] is not 0, zeros among them too (what n_of_m needs: set `pattern`, `n`
// and `m` afterwards). Values are rounded to value_format.
SparseWeight make_sparse(const float* dense, const uint8_t* keep, int64_t rows, int64_t columns, const std::string& value_format);

// What goes to disk. Rows are independent, so that a reader may map and slice them.
struct SparseParts {
  // bitmap, and n_of_m 4:8: the mask itself, [rows, ceil(columns / 8)] (bitmap: as compressed-tensors' sparse-bitmask).
  // n_of_m 2:4: four bits per group of four, first position | second position << 2, low nibble first; same shape.
  std::vector<uint8_t> positions;
  std::vector<int64_t> row_offsets;  // bitmap only: [rows], in kept entries
  std::vector<std::byte> values;     // kept values in value_format (not for grouped)
  std::vector<uint32_t> codes;       // grouped: codes of the kept entries, dense, each row starting at a word
};
SparseParts to_parts(const SparseWeight& weight);
// `weight` comes with rows, columns, pattern, n, m, value_format and, for grouped, all of `grouped` but its codes. Fills the
// rest and validates it. Throws Error{corrupt_file}; `name` leads the message.
void from_parts(const SparseParts& parts, SparseWeight& weight, const std::string& name);

}  // namespace frugal::formats
