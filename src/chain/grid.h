// Uniform integer grids, shared by every method that ends in formats::GroupedWeight. A group of `group` neighbouring input
// columns of one row has a scale and a zero point: w ~ (code - zero) * scale, code in [0, 2^bits - 1].
// Scales are rounded to float16 before any code is computed, so what is stored is exactly what the method saw.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "base/options.h"
#include "formats/grouped.h"

namespace frugal::chain {

using at::Tensor;

struct GridSpec {
  int bits = 4;
  int64_t group = 0;       // input columns that share a scale; 0: the whole row. The last group of a row may be ragged
  bool symmetric = false;  // zero is 2^(bits-1) everywhere and is not stored
  bool search = false;     // choose the range of a group by its squared error instead of its extremes

  int max_code() const { return (1 << bits) - 1; }
  int64_t width(int64_t columns) const { return group == 0 ? columns : std::min(group, columns); }
  int64_t groups(int64_t columns) const { return (columns + width(columns) - 1) / width(columns); }
};

// The options `bits`, `group` and `symmetric` that such methods share, and reading them.
std::vector<OptionSpec> grid_options(int bits, int min_bits = 2);
GridSpec grid_spec(const Options& options);

struct GroupGrid {
  float scale = 1;  // exact in float16, > 0
  float zero = 0;
};

// Nearest even integer; |value| < 2^22. The addition leaves no room for a fraction, and unlike nearbyint it needs no call.
inline float round_even(float value) { return (value + 12582912.0f) - 12582912.0f; }
inline double round_even(double value) { return (value + 6755399441055744.0) - 6755399441055744.0; }

template <typename T>
T encode(T value, GroupGrid grid, int max_code) {
  const T position = value / static_cast<T>(grid.scale) + static_cast<T>(grid.zero);
  return std::min(std::max(round_even(std::min(std::max(position, T(-1)), T(max_code + 1))), T(0)), T(max_code));
}

template <typename T>
T decode(T code, GroupGrid grid) {
  return (code - static_cast<T>(grid.zero)) * static_cast<T>(grid.scale);
}

// Nearest float16 that a scale may be: positive and finite.
float storable_scale(float scale);

// The grid of one group: its kept values (kept == nullptr: all) and zero lie inside, or, with spec.search, the shrunk range
// (steps of 2 % down to 20 %) of the least squared error. Symmetric ranges are [-a, a] with 2^bits - 1 steps between.
GroupGrid fit_group(const float* values, const bool* kept, int64_t count, const GridSpec& spec);

// Codes of a whole matrix with their grids.
struct GridCodes {
  GridCodes(const GridSpec& spec, int64_t rows, int64_t columns);

  GridSpec spec;
  int64_t rows = 0, columns = 0;
  bool float_zeros = false;      // zeros are not integers (hqq); exact in float16
  std::vector<uint8_t> codes;    // [rows, columns]
  std::vector<GroupGrid> grids;  // [rows, groups]

  GroupGrid& grid(int64_t row, int64_t group) { return grids[static_cast<size_t>(row * spec.groups(columns) + group)]; }
  const GroupGrid& grid(int64_t row, int64_t group) const { return grids[static_cast<size_t>(row * spec.groups(columns) + group)]; }
  // Fills the codes of `row` by rounding its values [columns] to the grids that are there.
  void encode_row(int64_t row, const float* values);
  Tensor decode() const;  // float32 [rows, columns]
  formats::GroupedWeight pack() const;
};

// Round to nearest: a grid for each group of `weight` [rows, columns] float32, and its codes. Entries outside `kept` (bool,
// same shape, may be undefined) do not widen a range. Throws Error{invalid_input} when a number is not finite.
GridCodes round_to_grid(const Tensor& weight, const Tensor& kept, const GridSpec& spec);

// The values that round_to_grid(...).decode() has, without making codes: for searches that round again and again.
Tensor rounded_to_grid(const Tensor& weight, const Tensor& kept, const GridSpec& spec);

// Throws Error{invalid_input}, naming `what`, when a number is not finite.
void require_finite(const Tensor& values, const std::string& what);

}  // namespace frugal::chain
