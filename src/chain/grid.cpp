#include "chain/grid.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/team.h"
#include "formats/half.h"

namespace frugal::chain {
namespace {

constexpr float kLargestHalf = 65504;
constexpr float kSmallestHalf = 0x1.0p-24f;
constexpr int64_t kRowGrain = 8;

GroupGrid grid_of_range(float low, float high, const GridSpec& spec) {
  GroupGrid grid;
  if (spec.symmetric) {
    const float bound = std::max(-low, high);
    grid.zero = static_cast<float>(1 << (spec.bits - 1));
    if (bound > 0) grid.scale = storable_scale(2 * bound / static_cast<float>(spec.max_code()));
    return grid;
  }
  if (high > low) grid.scale = storable_scale((high - low) / static_cast<float>(spec.max_code()));
  grid.zero = encode(-low, GroupGrid{grid.scale, 0}, spec.max_code());
  return grid;
}

double squared_error(const float* values, const bool* kept, int64_t count, GroupGrid grid, int max_code) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (kept && !kept[i]) continue;
    const float error = values[i] - decode(encode(values[i], grid, max_code), grid);
    sum += static_cast<double>(error) * error;
  }
  return sum;
}

}  // namespace

std::vector<OptionSpec> grid_options(int bits, int min_bits) {
  return {integer_option("bits", bits, min_bits, 8, "bits of a code"),
          integer_option("group", 64, 0, 1 << 20, "input columns that share a scale; 0: the whole row"),
          boolean_option("symmetric", false, "no zero point: the grid is centred on 0")};
}

GridSpec grid_spec(const Options& options) {
  GridSpec spec;
  spec.bits = static_cast<int>(options.integer("bits"));
  spec.group = options.integer("group");
  spec.symmetric = options.boolean("symmetric");
  return spec;
}

float storable_scale(float scale) {
  const float half = formats::round_to_f16(std::min(scale, kLargestHalf));
  return std::max(half, kSmallestHalf);
}

GroupGrid fit_group(const float* values, const bool* kept, int64_t count, const GridSpec& spec) {
  float low = 0, high = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (kept && !kept[i]) continue;
    low = std::min(low, values[i]);
    high = std::max(high, values[i]);
  }
  GroupGrid best = grid_of_range(low, high, spec);
  if (!spec.search || low == high) return best;
  double least = squared_error(values, kept, count, best, spec.max_code());
  for (int step = 1; step <= 40; ++step) {
    const float share = 1 - 0.02f * static_cast<float>(step);
    const GroupGrid grid = grid_of_range(low * share, high * share, spec);
    const double error = squared_error(values, kept, count, grid, spec.max_code());
    if (error < least) {
      least = error;
      best = grid;
    }
  }
  return best;
}

GridCodes::GridCodes(const GridSpec& spec, int64_t rows, int64_t columns)
    : spec(spec), rows(rows), columns(columns), codes(static_cast<size_t>(rows * columns)), grids(static_cast<size_t>(rows * spec.groups(columns))) {}

void GridCodes::encode_row(int64_t row, const float* values) {
  const int64_t width = spec.width(columns);
  uint8_t* out = codes.data() + row * columns;
  for (int64_t begin = 0, group = 0; begin < columns; begin += width, ++group) {
    const GroupGrid here = grid(row, group);
    for (int64_t c = begin; c < std::min(begin + width, columns); ++c) {
      out[c] = static_cast<uint8_t>(encode(values[c], here, spec.max_code()));
    }
  }
}

Tensor GridCodes::decode() const {
  Tensor values = at::empty({rows, columns}, at::kFloat);
  float* out = values.mutable_data_ptr<float>();
  const int64_t width = spec.width(columns);
  parallel_for(rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      for (int64_t begin = 0, group = 0; begin < columns; begin += width, ++group) {
        const GroupGrid here = grid(row, group);
        for (int64_t i = row * columns + begin; i < row * columns + std::min(begin + width, columns); ++i) {
          out[i] = chain::decode(static_cast<float>(codes[static_cast<size_t>(i)]), here);
        }
      }
    }
  });
  return values;
}

formats::GroupedWeight GridCodes::pack() const {
  formats::GroupedWeight packed;
  packed.rows = rows;
  packed.columns = columns;
  packed.bits = spec.bits;
  packed.group_size = spec.width(columns);
  packed.symmetric = spec.symmetric;
  packed.float_zeros = float_zeros;
  packed.codes.resize(static_cast<size_t>(rows * packed.words_per_row()));
  packed.scales.reserve(grids.size());
  packed.zeros.reserve(grids.size());
  for (const GroupGrid& grid : grids) {
    packed.scales.push_back(grid.scale);
    packed.zeros.push_back(grid.zero);
  }
  parallel_for(rows, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) formats::pack_row(packed, row, codes.data() + row * columns);
  });
  return packed;
}

namespace {

// Fits a grid to every group of every row, row by row, groups left to right: visit(row, group, first, count, grid), where
// `first` is the place in `values` (float, contiguous) of the group's first weight.
template <typename Visit>
void fit_groups(const Tensor& values, const Tensor& kept, const GridSpec& spec, const Visit& visit) {
  const Tensor mask = kept.defined() ? kept.contiguous() : Tensor();
  const float* data = values.const_data_ptr<float>();
  const bool* keep = mask.defined() ? mask.const_data_ptr<bool>() : nullptr;
  const int64_t columns = values.size(1), width = spec.width(columns);
  parallel_for(values.size(0), kRowGrain, [&](int64_t first_row, int64_t last_row) {
    for (int64_t row = first_row; row < last_row; ++row) {
      for (int64_t begin = 0, group = 0; begin < columns; begin += width, ++group) {
        const int64_t first = row * columns + begin, count = std::min(width, columns - begin);
        visit(row, group, first, count, fit_group(data + first, keep ? keep + first : nullptr, count, spec));
      }
    }
  });
}

Tensor finite_floats(const Tensor& weight) {
  require_finite(weight, "weight");
  return weight.to(at::kFloat).contiguous();
}

}  // namespace

GridCodes round_to_grid(const Tensor& weight, const Tensor& kept, const GridSpec& spec) {
  const Tensor values = finite_floats(weight);
  const float* data = values.const_data_ptr<float>();
  GridCodes result(spec, weight.size(0), weight.size(1));
  fit_groups(values, kept, spec, [&](int64_t row, int64_t group, int64_t first, int64_t count, const GroupGrid& grid) {
    result.grid(row, group) = grid;
    for (int64_t i = first; i < first + count; ++i) result.codes[static_cast<size_t>(i)] = static_cast<uint8_t>(encode(data[i], grid, spec.max_code()));
  });
  return result;
}

Tensor rounded_to_grid(const Tensor& weight, const Tensor& kept, const GridSpec& spec) {
  const Tensor values = finite_floats(weight);
  const float* data = values.const_data_ptr<float>();
  Tensor result = at::empty_like(values);
  float* out = result.mutable_data_ptr<float>();
  fit_groups(values, kept, spec, [&](int64_t, int64_t, int64_t first, int64_t count, const GroupGrid& grid) {
    for (int64_t i = first; i < first + count; ++i) out[i] = decode(encode(data[i], grid, spec.max_code()), grid);
  });
  return result;
}

void require_finite(const Tensor& values, const std::string& what) {
  if (!values.isfinite().all().item<bool>()) {
    fail(ErrorKind::invalid_input, "{}: a number is not finite (a broken checkpoint, or activations that overflow)", what);
  }
}

}  // namespace frugal::chain
