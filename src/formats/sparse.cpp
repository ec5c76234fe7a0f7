#include "formats/sparse.h"

#include <algorithm>
#include <bit>

#include "base/checked.h"
#include "formats/format.h"

namespace frugal::formats {

namespace {

constexpr int64_t kMaxDimension = int64_t{1} << 40;

const Format& plain_format(const std::string& id, std::string_view name) {
  const Format& format = format_at(id);
  if (format.block_weights != 1 || format.decode == nullptr || format.encode == nullptr) {
    fail(ErrorKind::unsupported, "{}: kept values cannot be stored as {}", name, id);
  }
  return format;
}

bool is_grouped(const SparseWeight& weight) { return weight.grouped.rows > 0; }

const uint8_t* mask_row(const SparseWeight& weight, int64_t row) { return weight.mask.data() + row * weight.mask_stride(); }

int64_t kept_in_row(const SparseWeight& weight, int64_t row) {
  const uint8_t* mask = mask_row(weight, row);
  int64_t kept = 0;
  for (int64_t byte = 0; byte < weight.mask_stride(); ++byte) kept += std::popcount(mask[byte]);
  return kept;
}

int64_t kept_in_all(const SparseWeight& weight) {
  int64_t kept = 0;
  for (int64_t row = 0; row < weight.rows; ++row) kept += kept_in_row(weight, row);
  return kept;
}

int64_t first_value(const SparseWeight& weight, int64_t row) {
  if (weight.pattern == SparsePattern::n_of_m) return row * (weight.columns / weight.m) * weight.n;
  if (!weight.row_offsets.empty()) return weight.row_offsets[static_cast<size_t>(row)];
  int64_t kept = 0;
  for (int64_t above = 0; above < row; ++above) kept += kept_in_row(weight, above);
  return kept;
}

// 32-bit words of the packed codes of a row that keeps `kept` entries.
int64_t code_words(const SparseWeight& weight, int64_t kept) { return (kept * weight.grouped.bits + 31) / 32; }

uint64_t mask_bytes(const SparseWeight& weight) {
  return checked_mul(static_cast<uint64_t>(weight.rows), static_cast<uint64_t>(weight.mask_stride()), "sparse mask");
}

void check_shape(const SparseWeight& weight, const std::string& name) {
  if (weight.rows < 1 || weight.columns < 1 || weight.rows > kMaxDimension || weight.columns > kMaxDimension) {
    fail(ErrorKind::corrupt_file, "{}: a sparse weight must have 1 to 2^40 rows and columns, has {} x {}", name, weight.rows, weight.columns);
  }
  if (weight.pattern != SparsePattern::n_of_m) return;
  if (!(weight.n == 2 && weight.m == 4) && !(weight.n == 4 && weight.m == 8)) {
    fail(ErrorKind::unsupported, "{}: the patterns with compact codes are 2:4 and 4:8, this is {}:{} (store it as a bitmap)", name, weight.n, weight.m);
  }
  if (weight.columns % weight.m != 0) {
    fail(ErrorKind::corrupt_file, "{}: {}:{} needs columns that are a multiple of {}, has {}", name, weight.n, weight.m, weight.m, weight.columns);
  }
}

void check_mask(const SparseWeight& weight, const std::string& name) {
  if (weight.mask.size() != mask_bytes(weight)) {
    fail(ErrorKind::corrupt_file, "{}: the mask must have {} bytes, has {}", name, mask_bytes(weight), weight.mask.size());
  }
  const int rest = static_cast<int>(weight.columns % 8);
  for (int64_t row = 0; row < weight.rows; ++row) {
    const uint8_t* mask = mask_row(weight, row);
    if (rest != 0 && mask[weight.mask_stride() - 1] >> rest != 0) {
      fail(ErrorKind::corrupt_file, "{}: the mask of row {} keeps entries beyond column {}", name, row, weight.columns - 1);
    }
    if (weight.pattern != SparsePattern::n_of_m) continue;
    for (int64_t column = 0; column < weight.columns; column += weight.m) {
      const int group = (mask[column / 8] >> (column % 8)) & ((1 << weight.m) - 1);
      if (std::popcount(static_cast<unsigned>(group)) != weight.n) {
        fail(ErrorKind::corrupt_file, "{}: {}:{} must keep {} of the {} entries at row {}, column {}, keeps {}", name, weight.n, weight.m, weight.n, weight.m,
             row, column, std::popcount(static_cast<unsigned>(group)));
      }
    }
  }
}

void check_row_offsets(const SparseWeight& weight, const std::string& name) {
  if (weight.row_offsets.size() != static_cast<size_t>(weight.rows)) {
    fail(ErrorKind::corrupt_file, "{}: there must be {} row offsets, there are {}", name, weight.rows, weight.row_offsets.size());
  }
  int64_t kept = 0;
  for (int64_t row = 0; row < weight.rows; ++row) {
    if (weight.row_offsets[static_cast<size_t>(row)] != kept) {
      fail(ErrorKind::corrupt_file, "{}: the offset of row {} must be {} as the mask counts, is {}", name, row, kept,
           weight.row_offsets[static_cast<size_t>(row)]);
    }
    kept += kept_in_row(weight, row);
  }
}

std::vector<int64_t> row_offsets_of(const SparseWeight& weight) {
  std::vector<int64_t> offsets(static_cast<size_t>(weight.rows));
  int64_t kept = 0;
  for (int64_t row = 0; row < weight.rows; ++row) {
    offsets[static_cast<size_t>(row)] = kept;
    kept += kept_in_row(weight, row);
  }
  return offsets;
}

// Calls body(position of a kept entry in its row, column) in ascending order.
template <typename Body>
void for_each_kept(const SparseWeight& weight, int64_t row, const Body& body) {
  const uint8_t* mask = mask_row(weight, row);
  int64_t position = 0;
  for (int64_t byte = 0; byte < weight.mask_stride(); ++byte) {
    for (unsigned bits = mask[byte]; bits != 0; bits &= bits - 1) body(position++, 8 * byte + std::countr_zero(bits));
  }
}

// --- 2:4 positions: nibble = first | second << 2 ---

uint8_t nibble_of_mask(unsigned mask) {
  const int first = std::countr_zero(mask);
  const int second = std::countr_zero(mask & (mask - 1));
  return static_cast<uint8_t>(first | second << 2);
}

// 0, which check_mask refuses, when the positions do not ascend.
unsigned mask_of_nibble(unsigned nibble) {
  const unsigned first = nibble & 3;
  const unsigned second = nibble >> 2;
  return first < second ? 1u << first | 1u << second : 0u;
}

std::vector<uint8_t> pack_positions(const SparseWeight& weight) {
  std::vector<uint8_t> positions = weight.mask;
  if (weight.pattern != SparsePattern::n_of_m || weight.m != 4) return positions;
  const bool half_byte = weight.columns % 8 != 0;
  for (size_t i = 0; i < positions.size(); ++i) {
    const unsigned mask = positions[i];
    const bool padded = half_byte && (i + 1) % static_cast<size_t>(weight.mask_stride()) == 0;
    positions[i] = static_cast<uint8_t>(nibble_of_mask(mask & 15) | (padded ? 0 : nibble_of_mask(mask >> 4) << 4));
  }
  return positions;
}

std::vector<uint8_t> unpack_positions(const std::vector<uint8_t>& positions, const SparseWeight& weight) {
  std::vector<uint8_t> mask = positions;
  if (weight.pattern != SparsePattern::n_of_m || weight.m != 4) return mask;
  const bool half_byte = weight.columns % 8 != 0;
  for (size_t i = 0; i < mask.size(); ++i) {
    const unsigned nibbles = positions[i];
    const bool padded = half_byte && (i + 1) % static_cast<size_t>(weight.mask_stride()) == 0;
    mask[i] = static_cast<uint8_t>(mask_of_nibble(nibbles & 15) | (padded ? 0 : mask_of_nibble(nibbles >> 4) << 4));
  }
  return mask;
}

}  // namespace

uint64_t SparseWeight::storage_bytes() const {
  uint64_t bytes = mask_bytes(*this);
  if (pattern == SparsePattern::bitmap) bytes = checked_add(bytes, checked_mul<uint64_t>(static_cast<uint64_t>(rows), 8, "row offsets"), "sparse weight");
  if (!is_grouped(*this)) return checked_add(bytes, bytes_of(format_at(value_format), static_cast<uint64_t>(kept_in_all(*this))), "sparse weight");
  uint64_t words = 0;
  for (int64_t row = 0; row < rows; ++row) words += static_cast<uint64_t>(code_words(*this, kept_in_row(*this, row)));
  const uint64_t dense_code_bytes = 4 * static_cast<uint64_t>(rows) * static_cast<uint64_t>(grouped.words_per_row());
  return checked_add(bytes, grouped.storage_bytes() - dense_code_bytes + 4 * words, "sparse weight");
}

void validate(const SparseWeight& weight, const std::string& name) {
  check_shape(weight, name);
  check_mask(weight, name);
  if (!weight.row_offsets.empty()) check_row_offsets(weight, name);
  if (is_grouped(weight)) {
    validate(weight.grouped, name);
    if (weight.grouped.rows != weight.rows || weight.grouped.columns != weight.columns) {
      fail(ErrorKind::corrupt_file, "{}: the grouped values must be {} x {}, are {} x {}", name, weight.rows, weight.columns, weight.grouped.rows,
           weight.grouped.columns);
    }
    if (!weight.values.empty()) fail(ErrorKind::corrupt_file, "{}: has both plain and grouped values", name);
    return;
  }
  plain_format(weight.value_format, name);
  const uint64_t kept = static_cast<uint64_t>(kept_in_all(weight));
  if (weight.values.size() != kept) {
    fail(ErrorKind::corrupt_file, "{}: the mask keeps {} entries, but there are {} values", name, kept, weight.values.size());
  }
}

void index_rows(SparseWeight& weight) { weight.row_offsets = row_offsets_of(weight); }

void decode_row(const SparseWeight& weight, int64_t row, float* values) {
  if (is_grouped(weight)) {
    std::vector<float> dense(static_cast<size_t>(weight.columns));
    decode_row(weight.grouped, row, dense.data());
    std::fill_n(values, weight.columns, 0.0f);
    for_each_kept(weight, row, [&](int64_t, int64_t column) { values[column] = dense[static_cast<size_t>(column)]; });
    return;
  }
  std::fill_n(values, weight.columns, 0.0f);
  const float* kept = weight.values.data() + first_value(weight, row);
  for_each_kept(weight, row, [&](int64_t position, int64_t column) { values[column] = kept[position]; });
}

SparseWeight make_sparse(const float* dense, const uint8_t* keep, int64_t rows, int64_t columns, const std::string& value_format) {
  SparseWeight weight;
  weight.rows = rows;
  weight.columns = columns;
  weight.value_format = value_format;
  check_shape(weight, "sparse weight");
  const Format& format = plain_format(value_format, "sparse weight");
  weight.mask.resize(mask_bytes(weight));
  for (int64_t row = 0; row < rows; ++row) {
    uint8_t* mask = weight.mask.data() + row * weight.mask_stride();
    for (int64_t column = 0; column < columns; ++column) {
      if (keep[row * columns + column] == 0) continue;
      mask[column / 8] = static_cast<uint8_t>(mask[column / 8] | 1u << (column % 8));
      weight.values.push_back(dense[row * columns + column]);
    }
  }
  // Once through the storage format, so that what is in memory is what a file will give back.
  const int64_t count = static_cast<int64_t>(weight.values.size());
  std::vector<std::byte> bytes(bytes_of(format, weight.values.size()));
  format.encode(weight.values.data(), nullptr, bytes.data(), count);
  format.decode(bytes.data(), weight.values.data(), count);
  index_rows(weight);
  return weight;
}

SparseWeight make_sparse(const float* dense, int64_t rows, int64_t columns, const std::string& value_format) {
  const int64_t shape[] = {rows, columns};
  std::vector<uint8_t> keep(checked_product(shape, "sparse weight"));
  for (size_t i = 0; i < keep.size(); ++i) keep[i] = dense[i] != 0.0f ? 1 : 0;
  return make_sparse(dense, keep.data(), rows, columns, value_format);
}

SparseParts to_parts(const SparseWeight& weight) {
  SparseParts parts;
  parts.positions = pack_positions(weight);
  if (weight.pattern == SparsePattern::bitmap) parts.row_offsets = row_offsets_of(weight);
  if (!is_grouped(weight)) {
    const Format& format = plain_format(weight.value_format, "sparse weight");
    parts.values.resize(bytes_of(format, weight.values.size()));
    format.encode(weight.values.data(), nullptr, parts.values.data(), static_cast<int64_t>(weight.values.size()));
    return parts;
  }
  std::vector<uint8_t> codes(static_cast<size_t>(weight.columns));
  for (int64_t row = 0; row < weight.rows; ++row) {
    unpack_row(weight.grouped, row, codes.data());
    int64_t kept = 0;
    for_each_kept(weight, row, [&](int64_t position, int64_t column) {  // position <= column: in place
      codes[static_cast<size_t>(position)] = codes[static_cast<size_t>(column)];
      kept = position + 1;
    });
    const size_t start = parts.codes.size();
    parts.codes.resize(start + static_cast<size_t>(code_words(weight, kept)));
    pack_codes(codes.data(), kept, weight.grouped.bits, parts.codes.data() + start);
  }
  return parts;
}

void from_parts(const SparseParts& parts, SparseWeight& weight, const std::string& name) {
  check_shape(weight, name);
  if (parts.positions.size() != mask_bytes(weight)) {
    fail(ErrorKind::corrupt_file, "{}: positions must have {} bytes, have {}", name, mask_bytes(weight), parts.positions.size());
  }
  weight.mask = unpack_positions(parts.positions, weight);
  check_mask(weight, name);
  if (weight.pattern == SparsePattern::bitmap) {
    weight.row_offsets = parts.row_offsets;
    check_row_offsets(weight, name);
  } else {
    index_rows(weight);
  }
  if (!is_grouped(weight)) {
    const Format& format = plain_format(weight.value_format, name);
    const uint64_t kept = static_cast<uint64_t>(kept_in_all(weight));
    if (parts.values.size() != bytes_of(format, kept)) {
      fail(ErrorKind::corrupt_file, "{}: {} kept values take {} bytes, there are {}", name, kept, bytes_of(format, kept), parts.values.size());
    }
    weight.values.resize(kept);
    format.decode(parts.values.data(), weight.values.data(), static_cast<int64_t>(kept));
    validate(weight, name);
    return;
  }
  GroupedWeight& grouped = weight.grouped;
  if (grouped.rows != weight.rows || grouped.columns != weight.columns || grouped.bits < 1 || grouped.bits > 8) {
    fail(ErrorKind::corrupt_file, "{}: the grouped values must be {} x {} of 1 to 8 bits, are {} x {} of {}", name, weight.rows, weight.columns, grouped.rows,
         grouped.columns, grouped.bits);
  }
  uint64_t words = 0;
  for (int64_t row = 0; row < weight.rows; ++row) words += static_cast<uint64_t>(code_words(weight, kept_in_row(weight, row)));
  if (parts.codes.size() != words) fail(ErrorKind::corrupt_file, "{}: the kept codes take {} words, there are {}", name, words, parts.codes.size());
  grouped.codes.assign(checked_mul(static_cast<uint64_t>(grouped.rows), static_cast<uint64_t>(grouped.words_per_row()), name), 0);
  const uint32_t* packed = parts.codes.data();
  std::vector<uint8_t> kept_codes(static_cast<size_t>(weight.columns));
  std::vector<uint8_t> codes(static_cast<size_t>(weight.columns));
  for (int64_t row = 0; row < weight.rows; ++row) {
    const int64_t kept = kept_in_row(weight, row);
    unpack_codes(packed, kept, grouped.bits, kept_codes.data());
    packed += code_words(weight, kept);
    std::fill(codes.begin(), codes.end(), uint8_t{0});
    for_each_kept(weight, row, [&](int64_t position, int64_t column) { codes[static_cast<size_t>(column)] = kept_codes[static_cast<size_t>(position)]; });
    pack_row(grouped, row, codes.data());
  }
  validate(weight, name);
}

}  // namespace frugal::formats
