#include "kernels/cpu/packed_matrix.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "base/checked.h"
#include "base/team.h"
#include "kernels/cpu/half.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/work_queue.h"

namespace frugal::kernels {
namespace {

constexpr int64_t kPanelRows = 16;
constexpr int64_t kUnitColumns = 16;
constexpr int64_t kSuperColumns = 256;

bool exact_in_f16(float value) { return half_to_float(float_to_half(value)) == value; }

// value = mantissa * 2^exponent with an odd mantissa; value is finite and not 0.
struct Dyadic {
  int64_t mantissa;
  int exponent;
};
Dyadic split(float value) {
  int exponent = 0;
  const auto mantissa = static_cast<int64_t>(std::ldexp(std::frexp(value, &exponent), 24));
  const int zeros = std::countr_zero(static_cast<uint64_t>(mantissa < 0 ? -mantissa : mantissa));
  return {mantissa / (int64_t{1} << zeros), exponent - 24 + zeros};
}

// Finds base and multiples in [-127, 127] with values[i] == base * multiples[i] exactly. False where there are none.
bool common_divisor(const float* values, int64_t count, float* base, int8_t* multiples) {
  int lowest = 1000;
  for (int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(values[i])) return false;
    if (values[i] != 0) lowest = std::min(lowest, split(values[i]).exponent);
  }
  int64_t divisor = 0;
  std::vector<int64_t> integers(static_cast<size_t>(count), 0);
  for (int64_t i = 0; i < count; ++i) {
    if (values[i] == 0) continue;
    const Dyadic d = split(values[i]);
    if (d.exponent - lowest > 30) return false;
    integers[static_cast<size_t>(i)] = d.mantissa * (int64_t{1} << (d.exponent - lowest));
    divisor = std::gcd(divisor, integers[static_cast<size_t>(i)]);
  }
  *base = divisor == 0 ? 0.0f : std::ldexp(static_cast<float>(divisor), lowest);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t multiple = divisor == 0 ? 0 : integers[static_cast<size_t>(i)] / divisor;
    if (std::abs(multiple) > 127) return false;
    multiples[i] = static_cast<int8_t>(multiple);
    if (*base * static_cast<float>(multiple) != values[i]) return false;
  }
  return true;
}

// What the scales of a matrix allow; found row by row, and combined.
struct Needs {
  bool minimums = false;
  bool not_f16 = false;
  bool not_int8 = false;
};

struct RowBuffers {
  std::vector<uint8_t> codes;
  std::vector<float> scales, minimums;
};

Needs needs_of(const RowBuffers& row, int bits, int64_t groups, int64_t groups_per_super, const Needs& known) {
  Needs needs = known;
  const float middle = -static_cast<float>(1 << (bits - 1));
  for (int64_t g = 0; g < groups; ++g) {
    const auto i = static_cast<size_t>(g);
    needs.minimums |= row.minimums[i] != middle * row.scales[i];
    needs.not_f16 |= !exact_in_f16(row.scales[i]);
  }
  if (needs.minimums) {
    for (const float minimum : row.minimums) needs.not_f16 |= !exact_in_f16(minimum);
  }
  if (!needs.not_f16 || needs.not_int8) return needs;
  int8_t multiples[kSuperColumns / kUnitColumns];
  float base;
  for (int64_t g = 0; g < groups && !needs.not_int8; g += groups_per_super) {
    const int64_t count = std::min(groups_per_super, groups - g);
    needs.not_int8 |= !common_divisor(row.scales.data() + g, count, &base, multiples);
    if (needs.minimums) needs.not_int8 |= !common_divisor(row.minimums.data() + g, count, &base, multiples);
  }
  return needs;
}

ScaleForm form_of(const Needs& needs) {
  if (!needs.not_f16) return ScaleForm::fp16;
  return needs.not_int8 ? ScaleForm::fp32 : ScaleForm::int8_times_fp32;
}

int64_t scale_bytes(ScaleForm form) { return form == ScaleForm::fp16 ? 2 : form == ScaleForm::fp32 ? 4 : 1; }

void finish_layout(PackedMatrix::Layout& layout, int bits, const Needs& needs) {
  layout.scale_form = form_of(needs);
  layout.has_minimums = needs.minimums;
  const int64_t arrays = layout.has_minimums ? 2 : 1;
  layout.panel_bytes = layout.units * bits * 32 + layout.groups * arrays * kPanelRows * scale_bytes(layout.scale_form);
  if (layout.scale_form == ScaleForm::int8_times_fp32) {
    const int64_t supers = (layout.groups + layout.groups_per_super - 1) / layout.groups_per_super;
    layout.panel_bytes += supers * arrays * kPanelRows * 4;
  }
}

// Where planes of a unit lie: `width` bits each, `target` the bit of the code that they hold, `offset` bytes into the unit.
struct Plane {
  int width, target, offset;
};
std::vector<Plane> planes_of(int bits) {
  switch (bits) {
    case 2: return {{2, 0, 0}};
    case 3: return {{2, 0, 0}, {1, 2, 64}};
    case 4: return {{4, 0, 0}};
    case 5: return {{4, 0, 0}, {1, 4, 128}};
    case 6: return {{4, 0, 0}, {2, 4, 128}};
    default: return {{8, 0, 0}};
  }
}

// Writes 16 rows x 16 columns of codes to zeros. codes: 16 rows, `stride` apart. 4 columns of a row are 4 bytes here and there, so
// they move together.
void pack_unit(const uint8_t* codes, int64_t stride, int lane_rows, std::span<const Plane> planes, std::byte* unit) {
  const int halves = static_cast<int>(kPanelRows) / lane_rows;
  auto* out = reinterpret_cast<uint8_t*>(unit);
  for (const Plane& plane : planes) {
    const uint32_t mask = ((uint32_t{1} << plane.width) - 1) * 0x01010101u;
    const int per_byte = 8 / plane.width;  // vectors that share a stored vector
    for (int row = 0; row < kPanelRows; ++row) {
      const int lane = row % lane_rows * 4;
      for (int column = 0; column < kUnitColumns; column += 4) {
        const int vector = column / 4 * halves + row / lane_rows;
        uint32_t four, stored;
        std::memcpy(&four, codes + row * stride + column, 4);
        four = (four >> plane.target) & mask;
        if (plane.width == 1 && lane_rows == 16) {                // a mask register per vector
          const uint32_t bits = (four * 0x01020408u) >> 24 & 15;  // bit 0 of each byte, the first lowest
          out[plane.offset + vector * 8 + lane / 8] |= static_cast<uint8_t>(bits << (lane % 8));
          continue;
        }
        uint8_t* to = out + plane.offset + vector / per_byte * lane_rows * 4 + lane;
        std::memcpy(&stored, to, 4);
        stored |= four << (vector % per_byte * plane.width);
        std::memcpy(to, &stored, 4);
      }
    }
  }
}

class PanelWriter {
 public:
  PanelWriter(const IntegerRows& source, const PackedMatrix::Layout& layout, bool signed_bytes)
      : source_(source), layout_(layout), signed_bytes_(signed_bytes), planes_(planes_of(source.bits)) {}

  // Null rows are padding. Returns false when a scale does not fit the layout's form (cannot happen after needs_of).
  void write(const std::vector<RowBuffers>& rows, int64_t count, std::byte* panel) const {
    const int64_t padded = layout_.units * kUnitColumns;
    std::vector<uint8_t> codes(static_cast<size_t>(padded * kPanelRows), signed_bytes_ && source_.bits == 8 ? 128 : 0);
    for (int64_t r = 0; r < count; ++r) {
      std::memcpy(codes.data() + r * padded, rows[static_cast<size_t>(r)].codes.data(), static_cast<size_t>(source_.columns));
    }
    if (signed_bytes_ && source_.bits == 8) {
      for (uint8_t& code : codes) code ^= 128;
    }
    std::vector<int8_t> multiples[2];
    int64_t unit = 0;
    for (int64_t g = 0; g < layout_.groups; ++g) {
      for (int array = 0; array < (layout_.has_minimums ? 2 : 1); ++array) {
        if (layout_.scale_form == ScaleForm::int8_times_fp32 && g % layout_.groups_per_super == 0) {
          panel = write_super(rows, count, g, array, multiples[array], panel);
        }
      }
      for (int array = 0; array < (layout_.has_minimums ? 2 : 1); ++array) panel = write_scales(rows, count, g, array, multiples[array], panel);
      const int64_t end = std::min(layout_.units, unit + layout_.units_per_group);
      for (; unit < end; ++unit, panel += source_.bits * 32) {
        pack_unit(codes.data() + unit * kUnitColumns, padded, layout_.lane_rows, planes_, panel);
      }
    }
  }

 private:
  static const std::vector<float>& values_of(const RowBuffers& row, int array) { return array == 0 ? row.scales : row.minimums; }

  std::byte* write_super(const std::vector<RowBuffers>& rows, int64_t count, int64_t group, int array, std::vector<int8_t>& multiples, std::byte* out) const {
    const int64_t groups = std::min(layout_.groups_per_super, layout_.groups - group);
    multiples.assign(static_cast<size_t>(layout_.groups_per_super * kPanelRows), 0);
    int8_t own[kSuperColumns / kUnitColumns];
    for (int64_t r = 0; r < count; ++r) {
      float base = 0;
      common_divisor(values_of(rows[static_cast<size_t>(r)], array).data() + group, groups, &base, own);
      std::memcpy(out + r * 4, &base, 4);
      for (int64_t g = 0; g < groups; ++g) multiples[static_cast<size_t>(g * kPanelRows + r)] = own[g];
    }
    return out + kPanelRows * 4;
  }

  std::byte* write_scales(const std::vector<RowBuffers>& rows, int64_t count, int64_t group, int array, const std::vector<int8_t>& multiples,
                          std::byte* out) const {
    const int64_t size = scale_bytes(layout_.scale_form);
    for (int64_t r = 0; r < count; ++r) {
      const float value = values_of(rows[static_cast<size_t>(r)], array)[static_cast<size_t>(group)];
      if (layout_.scale_form == ScaleForm::fp16) {
        const uint16_t half = float_to_half(value);
        std::memcpy(out + r * size, &half, 2);
      } else if (layout_.scale_form == ScaleForm::fp32) {
        std::memcpy(out + r * size, &value, 4);
      } else {
        std::memcpy(out + r, &multiples[static_cast<size_t>(group % layout_.groups_per_super * kPanelRows + r)], 1);
      }
    }
    return out + kPanelRows * size;
  }

  const IntegerRows& source_;
  const PackedMatrix::Layout& layout_;
  bool signed_bytes_;
  std::vector<Plane> planes_;
};

void read_row(const IntegerRows& source, int64_t row, int64_t groups, RowBuffers& buffers) {
  buffers.codes.resize(static_cast<size_t>(source.columns));
  buffers.scales.resize(static_cast<size_t>(groups));
  buffers.minimums.resize(static_cast<size_t>(groups));
  source.read_row(row, buffers.codes.data(), buffers.scales.data(), buffers.minimums.data());
  uint8_t all = 0;
  for (const uint8_t code : buffers.codes) all |= code;
  if (all >> source.bits != 0) fail(ErrorKind::invalid_input, "packed matrix: a code in row {} has more than {} bits", row, source.bits);
}

}  // namespace

bool supports_packing(int bits, int64_t group, int64_t columns) {
  const bool width = bits == 2 || bits == 3 || bits == 4 || bits == 5 || bits == 6 || bits == 8;
  return width && columns > 0 && group > 0 && (group % kUnitColumns == 0 || group >= columns);
}

PackedMatrix::PackedMatrix(const IntegerRows& source) : rows_(source.rows), columns_(source.columns), bits_(source.bits) {
  if (rows_ <= 0 || columns_ <= 0) fail(ErrorKind::invalid_input, "packed matrix: {} rows x {} columns", rows_, columns_);
  if (!supports_packing(bits_, source.group, columns_)) {
    fail(ErrorKind::unsupported, "packed matrix: {} bits in groups of {} over {} columns", bits_, source.group, columns_);
  }
  checked_mul(checked_mul(static_cast<uint64_t>(rows_) + kPanelRows, static_cast<uint64_t>(columns_) + 32, "packed matrix"), uint64_t{64}, "packed matrix");
  const KernelTable& table = kernels();
  layout_.lane_rows = table.lane_rows;
  layout_.groups = source.group >= columns_ ? 1 : (columns_ + source.group - 1) / source.group;
  layout_.block = layout_.groups == 1 || source.group % 32 == 0 ? 32 : 16;
  layout_.units = (columns_ + layout_.block - 1) / layout_.block * (layout_.block / kUnitColumns);
  layout_.units_per_group = layout_.groups == 1 ? layout_.units : source.group / kUnitColumns;
  layout_.groups_per_super = source.group <= kSuperColumns / 2 ? std::max<int64_t>(1, kSuperColumns / source.group) : 1;

  // The form of the scales is read off the first rows; a row that does not fit starts the packing again with a wider form.
  Needs needs;
  needs.not_int8 = layout_.groups_per_super < 2;
  RowBuffers first;
  for (int64_t r = 0; r < std::min(rows_, kPanelRows); ++r) {
    read_row(source, r, layout_.groups, first);
    needs = needs_of(first, bits_, layout_.groups, layout_.groups_per_super, needs);
  }
  const int64_t panels = (rows_ + kPanelRows - 1) / kPanelRows;
  for (;;) {
    finish_layout(layout_, bits_, needs);
    // 64 bytes behind the last panel, so that prefetches and full-width loads stay inside.
    buffer_ = AlignedBuffer(static_cast<uint64_t>(panels * layout_.panel_bytes) + 64, AlignedBuffer::Fill::none);
    std::memset(buffer_.data() + panels * layout_.panel_bytes, 0, 64);
    std::atomic<bool> minimums{needs.minimums}, not_f16{needs.not_f16}, not_int8{needs.not_int8}, fits{true};
    const PanelWriter writer(source, layout_, table.signed_bytes);
    parallel_for(panels, 1, [&](int64_t begin, int64_t end) {
      std::vector<RowBuffers> rows(kPanelRows);
      for (int64_t panel = begin; panel < end && fits; ++panel) {
        const int64_t count = std::min(kPanelRows, rows_ - panel * kPanelRows);
        for (int64_t r = 0; r < count; ++r) {
          read_row(source, panel * kPanelRows + r, layout_.groups, rows[static_cast<size_t>(r)]);
          const Needs own = needs_of(rows[static_cast<size_t>(r)], bits_, layout_.groups, layout_.groups_per_super, needs);
          if (own.minimums != needs.minimums || form_of(own) != layout_.scale_form) {
            if (own.minimums) minimums = true;
            if (own.not_f16) not_f16 = true;
            if (own.not_int8) not_int8 = true;
            fits = false;
          }
        }
        if (!fits) break;
        std::byte* const out = buffer_.data() + panel * layout_.panel_bytes;
        std::memset(out, 0, static_cast<size_t>(layout_.panel_bytes));
        writer.write(rows, count, out);
      }
    });
    if (fits) return;
    needs = {minimums, not_f16, not_int8};
  }
}

void PackedMatrix::decode_row(int64_t row, float* values) const {
  if (row < 0 || row >= rows_) fail(ErrorKind::invalid_input, "packed matrix: row {} of {}", row, rows_);
  const int64_t lane_row = row % kPanelRows;
  const auto* p = reinterpret_cast<const uint8_t*>(buffer_.data() + row / kPanelRows * layout_.panel_bytes);
  const std::vector<Plane> planes = planes_of(bits_);
  const int halves = static_cast<int>(kPanelRows) / layout_.lane_rows;
  const bool signed_byte = bits_ == 8 && layout_.lane_rows == 8;
  float super[2] = {0, 0};
  int64_t unit = 0;
  for (int64_t g = 0; g < layout_.groups; ++g) {
    float value[2] = {0, 0};
    const int arrays = layout_.has_minimums ? 2 : 1;
    if (layout_.scale_form == ScaleForm::int8_times_fp32 && g % layout_.groups_per_super == 0) {
      for (int array = 0; array < arrays; ++array, p += kPanelRows * 4) std::memcpy(&super[array], p + lane_row * 4, 4);
    }
    for (int array = 0; array < arrays; ++array) {
      if (layout_.scale_form == ScaleForm::fp16) {
        uint16_t half;
        std::memcpy(&half, p + lane_row * 2, 2);
        value[array] = half_to_float(half);
      } else if (layout_.scale_form == ScaleForm::fp32) {
        std::memcpy(&value[array], p + lane_row * 4, 4);
      } else {
        value[array] = super[array] * static_cast<float>(static_cast<int8_t>(p[lane_row]));
      }
      p += kPanelRows * scale_bytes(layout_.scale_form);
    }
    if (!layout_.has_minimums) value[1] = -static_cast<float>(1 << (bits_ - 1)) * value[0];
    const int64_t end = std::min(layout_.units, unit + layout_.units_per_group);
    for (; unit < end; ++unit, p += bits_ * 32) {
      for (int64_t c = 0; c < kUnitColumns && unit * kUnitColumns + c < columns_; ++c) {
        const auto vector = static_cast<int>(c / 4 * halves + lane_row / layout_.lane_rows);
        const auto lane = static_cast<int>(lane_row % layout_.lane_rows * 4 + c % 4);
        int code = 0;
        for (const Plane& plane : planes) {
          const int per_byte = 8 / plane.width;
          const int bits = plane.width == 1 && layout_.lane_rows == 16
                               ? p[plane.offset + vector * 8 + lane / 8] >> (lane % 8)
                               : p[plane.offset + vector / per_byte * layout_.lane_rows * 4 + lane] >> (vector % per_byte * plane.width);
          code |= (bits & ((1 << plane.width) - 1)) << plane.target;
        }
        if (signed_byte) code ^= 128;
        values[unit * kUnitColumns + c] = value[0] * static_cast<float>(code) + value[1];
      }
    }
  }
}

}  // namespace frugal::kernels
