#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "ops/ops.h"

namespace frugal::ops {
namespace {

// [rows, columns] of int64: `columns` codes a row, LSB first, dense across 32-bit words.
Tensor unpacked(const Tensor& codes, int64_t columns, int64_t bits) {
  const Tensor words = at::bitwise_and(codes.to(at::kLong), 0xffffffffLL);
  const Tensor bit = at::arange(columns, codes.options().dtype(at::kLong)) * bits;
  const Tensor word = at::floor_divide(bit, 32), shift = at::remainder(bit, 32);
  const Tensor low = at::bitwise_right_shift(words.index_select(1, word), shift);
  // What crosses into the next word; beyond the row's last word nothing does.
  const Tensor high = at::bitwise_left_shift(words.index_select(1, (word + 1).clamp_max(codes.size(1) - 1)), 32 - shift);
  return at::bitwise_and(at::bitwise_or(low, high), (int64_t{1} << bits) - 1);
}

}  // namespace

void check_grouped(const Tensor& x, const GroupedTensors& weight) {
  const auto require = [](bool ok, const char* what, const Tensor& is) {
    if (!ok) fail(ErrorKind::invalid_input, "grouped_linear: {}, is [{}]", what, fmt::join(is.sizes(), ", "));
  };
  const auto [codes, scales, zeros, bits, group_size] = weight;
  if (bits < 1 || bits > 8) fail(ErrorKind::invalid_input, "grouped_linear: bits must be in 1..8, is {}", bits);
  require(x.dim() == 2 && x.size(1) > 0, "x must be [tokens, columns]", x);
  const int64_t columns = x.size(1);
  if (group_size < 1 || group_size > columns) fail(ErrorKind::invalid_input, "grouped_linear: group_size must be in 1..{}, is {}", columns, group_size);
  require(codes.dim() == 2 && codes.scalar_type() == at::kInt && codes.size(1) == (columns * bits + 31) / 32,
          "codes must be int32 [rows, ceil(columns * bits / 32)]", codes);
  const int64_t groups = (columns + group_size - 1) / group_size;
  require(scales.sizes() == at::IntArrayRef({codes.size(0), groups}), "scales must be [rows, groups]", scales);
  require(!zeros || zeros->sizes() == scales.sizes(), "zeros must be [rows, groups]", zeros ? *zeros : scales);
}

Tensor grouped_linear(const Tensor& x, const GroupedTensors& weight) {
  check_grouped(x, weight);
  const int64_t columns = x.size(1);
  const Tensor group = at::floor_divide(at::arange(columns, x.options().dtype(at::kLong)), weight.group_size);
  const Tensor codes = unpacked(weight.codes, columns, weight.bits).to(x.scalar_type());
  const Tensor centered = weight.zeros ? codes - weight.zeros->index_select(1, group) : codes - static_cast<double>(1 << (weight.bits - 1));
  return at::linear(x, centered * weight.scales.index_select(1, group));
}

}  // namespace frugal::ops
