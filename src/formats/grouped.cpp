#include "formats/grouped.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/checked.h"
#include "formats/format.h"

namespace frugal::formats {

namespace {

// 32 codes fill exactly Bits words, whatever Bits is. Fully unrolled, every shift is a constant.
template <int Bits>
void unpack_32(const uint32_t* words, uint8_t* codes) {
#pragma GCC unroll 32
  for (int i = 0; i < 32; ++i) {
    const int word = i * Bits / 32;
    const int shift = i * Bits % 32;
    uint32_t code = words[word] >> shift;
    if (shift + Bits > 32) code |= words[word + 1] << (32 - shift);
    codes[i] = static_cast<uint8_t>(code & ((1u << Bits) - 1u));
  }
}

template <int Bits>
void pack_32(const uint8_t* codes, uint32_t* words) {
  for (int word = 0; word < Bits; ++word) words[word] = 0;
#pragma GCC unroll 32
  for (int i = 0; i < 32; ++i) {
    const int word = i * Bits / 32;
    const int shift = i * Bits % 32;
    const uint32_t code = codes[i] & ((1u << Bits) - 1u);
    words[word] |= code << shift;
    if (shift + Bits > 32) words[word + 1] |= code >> (32 - shift);
  }
}

using Unpack = void (*)(const uint32_t*, uint8_t*);
using Pack = void (*)(const uint8_t*, uint32_t*);
constexpr Unpack kUnpack[9] = {nullptr, unpack_32<1>, unpack_32<2>, unpack_32<3>, unpack_32<4>, unpack_32<5>, unpack_32<6>, unpack_32<7>, unpack_32<8>};
constexpr Pack kPack[9] = {nullptr, pack_32<1>, pack_32<2>, pack_32<3>, pack_32<4>, pack_32<5>, pack_32<6>, pack_32<7>, pack_32<8>};

// Far beyond any tensor, and small enough that no product of the checks below wraps before it is checked.
constexpr int64_t kMaxDimension = int64_t{1} << 40;

void check_shape(const GroupedShape& shape, ErrorKind kind, const std::string& name) {
  const auto check = [&](bool ok, std::string_view rule, int64_t value) {
    if (!ok) fail(kind, "{}: {}, is {}", name, rule, value);
  };
  check(shape.rows >= 1 && shape.rows <= kMaxDimension, "rows must be 1 to 2^40", shape.rows);
  check(shape.columns >= 1 && shape.columns <= kMaxDimension, "columns must be 1 to 2^40", shape.columns);
  check(shape.bits >= 1 && shape.bits <= 8, "bits must be 1 to 8", shape.bits);
  check(shape.group_size >= 1 && shape.group_size <= shape.columns, "group size must be 1 to the number of columns", shape.group_size);
}

uint64_t product(int64_t a, int64_t b, std::string_view what) { return checked_mul(static_cast<uint64_t>(a), static_cast<uint64_t>(b), what); }

// Words of the zeros of one group, packed down the rows.
int64_t zero_words(const GroupedWeight& weight) { return (weight.rows * weight.bits + 31) / 32; }

void check_zeros(const GroupedWeight& weight, const std::string& name) {
  const float symmetric_zero = static_cast<float>(1 << (weight.bits - 1));
  const float top = static_cast<float>((1 << weight.bits) - 1);
  for (const float zero : weight.zeros) {
    if (weight.symmetric && zero != symmetric_zero) {
      fail(ErrorKind::corrupt_file, "{}: symmetric, so every zero must be {}, one is {}", name, symmetric_zero, zero);
    }
    if (!weight.float_zeros && !(zero >= 0.0f && zero <= top && zero == std::floor(zero))) {
      fail(ErrorKind::corrupt_file, "{}: integer zeros of {} bits must be integers in 0..{}, one is {}", name, weight.bits, top, zero);
    }
  }
}

}  // namespace

void pack_codes(const uint8_t* codes, int64_t count, int bits, uint32_t* words) {
  const Pack pack = kPack[bits];
  int64_t done = 0;
  for (; done + 32 <= count; done += 32, words += bits) pack(codes + done, words);
  if (done == count) return;
  std::array<uint8_t, 32> rest{};
  std::copy(codes + done, codes + count, rest.begin());
  std::array<uint32_t, 8> packed{};
  pack(rest.data(), packed.data());
  std::copy_n(packed.begin(), ((count - done) * bits + 31) / 32, words);
}

void unpack_codes(const uint32_t* words, int64_t count, int bits, uint8_t* codes) {
  const Unpack unpack = kUnpack[bits];
  int64_t done = 0;
  for (; done + 32 <= count; done += 32, words += bits) unpack(words, codes + done);
  if (done == count) return;
  std::array<uint32_t, 8> packed{};
  std::copy_n(words, ((count - done) * bits + 31) / 32, packed.begin());
  std::array<uint8_t, 32> rest;
  unpack(packed.data(), rest.data());
  std::copy_n(rest.begin(), count - done, codes + done);
}

GroupedWeight make_grouped(const GroupedShape& shape) {
  check_shape(shape, ErrorKind::invalid_input, "grouped weight");
  GroupedWeight weight;
  weight.rows = shape.rows;
  weight.columns = shape.columns;
  weight.bits = shape.bits;
  weight.group_size = shape.group_size;
  weight.symmetric = shape.symmetric;
  weight.codes.resize(product(weight.rows, weight.words_per_row(), "codes"));
  weight.scales.resize(product(weight.rows, weight.groups(), "scales"));
  if (!shape.symmetric) weight.zeros.resize(weight.scales.size());
  return weight;
}

uint64_t GroupedWeight::storage_bytes() const {
  const Format& format = format_at(scale_format);
  const uint64_t count = product(rows, groups(), "scales");
  uint64_t bytes = checked_mul<uint64_t>(product(rows, words_per_row(), "codes"), 4, "codes");
  bytes = checked_add(bytes, bytes_of(format, count), "grouped weight");
  if (!symmetric) {
    const uint64_t packed_zeros = checked_mul<uint64_t>(product(zero_words(*this), groups(), "zeros"), 4, "zeros");
    bytes = checked_add(bytes, float_zeros ? bytes_of(format, count) : packed_zeros, "grouped weight");
  }
  return checked_add<uint64_t>(bytes, 4 * group_index.size(), "grouped weight");
}

void validate(const GroupedWeight& weight, const std::string& name) {
  check_shape({weight.rows, weight.columns, weight.bits, weight.group_size, weight.symmetric}, ErrorKind::corrupt_file, name);
  const Format& format = format_at(weight.scale_format);
  if (format.block_weights != 1 || format.decode == nullptr) {
    fail(ErrorKind::unsupported, "{}: scales cannot be stored as {}", name, format.id);
  }
  if (weight.symmetric && weight.float_zeros) fail(ErrorKind::corrupt_file, "{}: symmetric weights have no float zeros", name);
  const auto check_size = [&](std::string_view what, size_t size, uint64_t expected) {
    if (size != expected) fail(ErrorKind::corrupt_file, "{}: {} must have {} elements, has {}", name, what, expected, size);
  };
  check_size("codes", weight.codes.size(), product(weight.rows, weight.words_per_row(), "codes"));
  const uint64_t scales = product(weight.rows, weight.groups(), "scales");
  check_size("scales", weight.scales.size(), scales);
  if (!weight.symmetric || !weight.zeros.empty()) check_size("zeros", weight.zeros.size(), scales);
  check_zeros(weight, name);
  if (weight.group_index.empty()) return;
  check_size("group index", weight.group_index.size(), static_cast<uint64_t>(weight.columns));
  for (const int32_t group : weight.group_index) {
    if (group < 0 || group >= weight.groups()) {
      fail(ErrorKind::corrupt_file, "{}: group index must be in 0..{}, one is {}", name, weight.groups() - 1, group);
    }
  }
}

void unpack_row(const GroupedWeight& weight, int64_t row, uint8_t* codes) {
  unpack_codes(weight.codes.data() + row * weight.words_per_row(), weight.columns, weight.bits, codes);
}

void pack_row(GroupedWeight& weight, int64_t row, const uint8_t* codes) {
  pack_codes(codes, weight.columns, weight.bits, weight.codes.data() + row * weight.words_per_row());
}

void decode_row(const GroupedWeight& weight, int64_t row, float* values) {
  std::vector<uint8_t> codes(static_cast<size_t>(weight.columns));
  unpack_row(weight, row, codes.data());
  const float* scales = weight.scales.data() + row * weight.groups();
  if (!weight.group_index.empty()) {
    for (int64_t c = 0; c < weight.columns; ++c) {
      const int64_t group = weight.group_of(c);
      values[c] = (static_cast<float>(codes[static_cast<size_t>(c)]) - weight.zero_of(row, group)) * scales[group];
    }
    return;
  }
  for (int64_t group = 0; group < weight.groups(); ++group) {
    const float scale = scales[group];
    const float zero = weight.zero_of(row, group);
    const int64_t end = std::min(weight.columns, (group + 1) * weight.group_size);
    for (int64_t c = group * weight.group_size; c < end; ++c) values[c] = (static_cast<float>(codes[static_cast<size_t>(c)]) - zero) * scale;
  }
}

std::vector<uint32_t> pack_zeros(const GroupedWeight& weight) {
  const int64_t words = zero_words(weight);
  const int64_t groups = weight.groups();
  std::vector<uint32_t> packed(product(words, groups, "zeros"));
  std::vector<uint8_t> column(static_cast<size_t>(weight.rows));
  std::vector<uint32_t> column_words(static_cast<size_t>(words));
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t row = 0; row < weight.rows; ++row) column[static_cast<size_t>(row)] = static_cast<uint8_t>(weight.zero_of(row, group));
    pack_codes(column.data(), weight.rows, weight.bits, column_words.data());
    for (int64_t word = 0; word < words; ++word) packed[static_cast<size_t>(word * groups + group)] = column_words[static_cast<size_t>(word)];
  }
  return packed;
}

void unpack_zeros(const std::vector<uint32_t>& words, GroupedWeight& weight, const std::string& name) {
  check_shape({weight.rows, weight.columns, weight.bits, weight.group_size, weight.symmetric}, ErrorKind::corrupt_file, name);
  const int64_t count = zero_words(weight);
  const int64_t groups = weight.groups();
  const uint64_t expected = product(count, groups, "zeros");
  if (words.size() != expected) fail(ErrorKind::corrupt_file, "{}: zeros must have {} words, have {}", name, expected, words.size());
  weight.zeros.resize(product(weight.rows, groups, "zeros"));
  std::vector<uint8_t> column(static_cast<size_t>(weight.rows));
  std::vector<uint32_t> column_words(static_cast<size_t>(count));
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t word = 0; word < count; ++word) column_words[static_cast<size_t>(word)] = words[static_cast<size_t>(word * groups + group)];
    unpack_codes(column_words.data(), weight.rows, weight.bits, column.data());
    for (int64_t row = 0; row < weight.rows; ++row) weight.zeros[static_cast<size_t>(row * groups + group)] = column[static_cast<size_t>(row)];
  }
}

}  // namespace frugal::formats
