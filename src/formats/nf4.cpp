#include "formats/nf4.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "base/checked.h"

namespace frugal::formats {

namespace {

constexpr int64_t kMaxDimension = int64_t{1} << 40;

float largest_magnitude(std::span<const float> values) {
  float largest = 0.0f;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

// The nearest of `table` (ascending); a value half way takes the lower one.
uint8_t nearest(std::span<const float> table, float value) {
  const auto above = std::lower_bound(table.begin(), table.end(), value);
  if (above == table.begin()) return 0;
  if (above == table.end()) return static_cast<uint8_t>(table.size() - 1);
  const auto below = above - 1;
  const bool upper = value > (*below + *above) / 2.0f;
  return static_cast<uint8_t>((upper ? above : below) - table.begin());
}

void quantize_magnitudes(Nf4Weight& weight) {
  const std::vector<float>& magnitudes = weight.magnitudes;
  double sum = 0.0;
  for (const float magnitude : magnitudes) sum += static_cast<double>(magnitude);
  weight.nested_offset = static_cast<float>(sum / static_cast<double>(magnitudes.size()));
  weight.nested_table = dynamic_table();
  weight.magnitude_codes.resize(magnitudes.size());
  std::vector<float> centred;
  for (const float magnitude : magnitudes) centred.push_back(magnitude - weight.nested_offset);
  const size_t step = static_cast<size_t>(weight.nested_block_size);
  for (size_t start = 0; start < centred.size(); start += step) {
    const std::span<const float> block(centred.data() + start, std::min(step, centred.size() - start));
    const float largest = largest_magnitude(block);
    weight.nested_magnitudes.push_back(largest);
    const float inverse = largest > 0.0f ? 1.0f / largest : 0.0f;
    for (size_t i = 0; i < block.size(); ++i) weight.magnitude_codes[start + i] = nearest(weight.nested_table, block[i] * inverse);
  }
  weight.magnitudes.clear();
}

}  // namespace

const std::array<float, 16>& nf4_table() {
  static const std::array<float, 16> table = {-1.0f,
                                              -0.6961928009986877f,
                                              -0.5250730514526367f,
                                              -0.39491748809814453f,
                                              -0.28444138169288635f,
                                              -0.18477343022823334f,
                                              -0.09105003625154495f,
                                              0.0f,
                                              0.07958029955625534f,
                                              0.16093020141124725f,
                                              0.24611230194568634f,
                                              0.33791524171829224f,
                                              0.44070982933044434f,
                                              0.5626170039176941f,
                                              0.7229568362236023f,
                                              1.0f};
  return table;
}

// Seven decades 10^-6 ... 1; decade e holds 2^e values on either side, the centres of equal parts of [0.1, 1]; then 0 and 1.
const std::vector<float>& dynamic_table() {
  static const std::vector<float> table = [] {
    std::vector<float> values = {0.0f, 1.0f};
    for (int decade = 0; decade < 7; ++decade) {
      const int parts = 1 << decade;
      const float step = 0.9f / static_cast<float>(parts);
      // From either end and rounded once, as torch.linspace does it.
      const auto boundary = [&](int i) {
        const double position = 2 * i < parts + 1 ? static_cast<double>(0.1f) + static_cast<double>(step) * i : 1.0 - static_cast<double>(step) * (parts - i);
        return static_cast<float>(position);
      };
      const float power = static_cast<float>(std::pow(10.0, decade - 6));
      for (int i = 0; i < parts; ++i) {
        const float value = power * ((boundary(i) + boundary(i + 1)) / 2.0f);
        values.push_back(value);
        values.push_back(-value);
      }
    }
    std::sort(values.begin(), values.end());
    return values;
  }();
  return table;
}

float Nf4Weight::magnitude(int64_t block) const {
  if (!double_quantized) return magnitudes[static_cast<size_t>(block)];
  const float nested = nested_magnitudes[static_cast<size_t>(block / nested_block_size)];
  return nested_table[magnitude_codes[static_cast<size_t>(block)]] * nested + nested_offset;
}

uint64_t Nf4Weight::storage_bytes() const {
  const size_t floats = table.size() + magnitudes.size() + nested_table.size() + nested_magnitudes.size() + (double_quantized ? 1 : 0);
  return codes.size() + magnitude_codes.size() + 4 * floats;
}

Nf4Weight encode_nf4(const float* dense, int64_t rows, int64_t columns, const Nf4Options& options) {
  if (rows < 1 || columns < 1 || options.block_size < 1) {
    fail(ErrorKind::invalid_input, "nf4: rows, columns and block size must be at least 1, are {}, {} and {}", rows, columns, options.block_size);
  }
  Nf4Weight weight;
  weight.rows = rows;
  weight.columns = columns;
  weight.block_size = options.block_size;
  weight.double_quantized = options.double_quantized;
  weight.table = nf4_table();
  const int64_t shape[] = {rows, columns};
  const size_t count = checked_product(shape, "nf4");
  weight.codes.resize((count + 1) / 2);
  const size_t step = static_cast<size_t>(options.block_size);
  for (size_t start = 0; start < count; start += step) {
    const std::span<const float> block(dense + start, std::min(step, count - start));
    const float largest = largest_magnitude(block);
    weight.magnitudes.push_back(largest);
    const float inverse = 1.0f / std::max(largest, 1e-38f);
    for (size_t i = start; i < start + block.size(); ++i) {
      const unsigned code = nearest(weight.table, dense[i] * inverse);
      weight.codes[i / 2] = static_cast<uint8_t>(weight.codes[i / 2] | code << (i % 2 == 0 ? 4 : 0));
    }
  }
  if (count % 2 != 0) weight.codes.back() = static_cast<uint8_t>(weight.codes.back() | 7);  // the code of 0
  if (options.double_quantized) quantize_magnitudes(weight);
  return weight;
}

void validate(const Nf4Weight& weight, const std::string& name) {
  if (weight.rows < 1 || weight.columns < 1 || weight.rows > kMaxDimension || weight.columns > kMaxDimension) {
    fail(ErrorKind::corrupt_file, "{}: a 4-bit weight must have 1 to 2^40 rows and columns, has {} x {}", name, weight.rows, weight.columns);
  }
  if (weight.block_size < 1 || weight.nested_block_size < 1) {
    fail(ErrorKind::corrupt_file, "{}: block sizes must be at least 1, are {} and {}", name, weight.block_size, weight.nested_block_size);
  }
  const int64_t shape[] = {weight.rows, weight.columns};
  const uint64_t count = checked_product(shape, name);
  const auto blocks_of = [](uint64_t total, int64_t size) { return total / static_cast<uint64_t>(size) + (total % static_cast<uint64_t>(size) != 0 ? 1 : 0); };
  const uint64_t blocks = blocks_of(count, weight.block_size);
  const auto check_size = [&](std::string_view what, size_t size, uint64_t expected) {
    if (size != expected) fail(ErrorKind::corrupt_file, "{}: {} must have {} elements, has {}", name, what, expected, size);
  };
  check_size("codes", weight.codes.size(), count / 2 + count % 2);
  check_size("magnitudes", weight.magnitudes.size(), weight.double_quantized ? 0 : blocks);
  if (!weight.double_quantized) return;
  check_size("magnitude codes", weight.magnitude_codes.size(), blocks);
  check_size("nested table", weight.nested_table.size(), 256);
  check_size("nested magnitudes", weight.nested_magnitudes.size(), blocks_of(blocks, weight.nested_block_size));
}

void decode_row(const Nf4Weight& weight, int64_t row, float* values) {
  const int64_t begin = row * weight.columns, end = begin + weight.columns;
  for (int64_t i = begin; i < end;) {
    const int64_t block = i / weight.block_size, block_end = std::min(end, (block + 1) * weight.block_size);
    const float magnitude = weight.magnitude(block);
    std::array<float, 16> decoded;
    for (size_t code = 0; code < decoded.size(); ++code) decoded[code] = weight.table[code] * magnitude;
    const auto low = [&](int64_t at) { return decoded[weight.codes[static_cast<size_t>(at / 2)] & 0x0f]; };
    const auto high = [&](int64_t at) { return decoded[weight.codes[static_cast<size_t>(at / 2)] >> 4]; };
    if (i % 2 != 0) *values++ = low(i++);
    for (; i + 1 < block_end; i += 2) {
      *values++ = high(i);
      *values++ = low(i);
    }
    if (i < block_end) *values++ = high(i++);
  }
}

}  // namespace frugal::formats
