#include "kernels/cpu/quantize_activations.h"

#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "base/team.h"
#include "kernels/cpu/kernel_table.h"

namespace frugal::kernels {

void QuantizedActivations::quantize(const float* x, int64_t tokens, int64_t columns, int64_t stride, const QuantizeOptions& options, const RowMaker& make) {
  if (tokens < 0 || columns < 0 || stride < columns) {
    fail(ErrorKind::invalid_input, "activations: {} tokens of {} columns with stride {}", tokens, columns, stride);
  }
  if (options.mode == ActivationScale::per_tensor && !(options.tensor_scale > 0 && std::isfinite(options.tensor_scale))) {
    fail(ErrorKind::invalid_input, "activations: the static scale must be positive and finite, is {}", options.tensor_scale);
  }
  const auto rows = static_cast<uint64_t>(tokens);
  const uint64_t padded = checked_round_up<uint64_t>(static_cast<uint64_t>(columns), 32, "activation columns");
  const uint64_t blocks = checked_mul(rows, padded / 32, "activation blocks");
  const uint64_t code_bytes = checked_mul(blocks, uint64_t{32}, "activation codes");
  buffer_.reserve(checked_add(code_bytes, checked_mul(blocks, uint64_t{16}, "activation scales"), "activations"));

  auto* codes = reinterpret_cast<int8_t*>(buffer_.data());
  auto* scales = reinterpret_cast<float*>(buffer_.data() + code_bytes);
  float* sums = scales + blocks;
  float* half_sums = sums + blocks;
  columns_ = columns;
  view_ = {tokens, static_cast<int64_t>(padded), codes, scales, sums, half_sums};
  const QuantizeArguments arguments{x,      stride, columns,  view_.padded_columns, static_cast<int>(options.mode), options.tensor_scale, codes,
                                    scales, sums,   half_sums};
  // One member of the team for less than 16 k values: a fork and join costs as much as quantizing about that many.
  const int64_t grain = columns > 0 ? std::max<int64_t>(1, 16384 / columns) : 1;
  constexpr int64_t kRowsAtOnce = 16;  // 96 KB of 1,536 columns: they stay in the L2 cache
  parallel_for(tokens, grain, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t stop = make ? std::min(end, begin + kRowsAtOnce) : end;
      if (make) make(begin, stop);
      kernels().quantize(arguments, begin, stop);
      begin = stop;
    }
  });
}

void QuantizedActivations::decode_row(int64_t token, float* values) const {
  if (token < 0 || token >= tokens()) fail(ErrorKind::invalid_input, "activations: row {} of {}", token, tokens());
  for (int64_t c = 0; c < columns_; ++c) {
    values[c] = view_.scales[token * (view_.padded_columns / 32) + c / 32] * static_cast<float>(view_.codes[token * view_.padded_columns + c]);
  }
}

}  // namespace frugal::kernels
