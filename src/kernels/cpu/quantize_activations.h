// Activations as 8-bit integers, made once per operator input and shared by every matrix that reads it (Q/K/V, gate/up).
//   code = clamp(round_to_nearest_even(x * inverse), -127, 127),   x ~ scale * code
//   per_block / per_token: amax = max |x| over 32 columns / the row, scale = amax / 127, inverse = 127 / amax (two fp32
//     divisions); amax < 2^-100 gives scale 0 and codes 0.
//   per_tensor: scale is given, inverse = 1 / scale.
// A NaN or infinity in a block makes its scale NaN and its codes 0, so that it shows in the output. Every instruction set gives
// the same bits.
#pragma once

#include <cstdint>
#include <functional>

#include "kernels/cpu/aligned_buffer.h"

namespace frugal::kernels {

enum class ActivationScale { per_block, per_token, per_tensor };

inline constexpr int64_t kActivationBlock = 32;

struct QuantizeOptions {
  ActivationScale mode = ActivationScale::per_block;
  float tensor_scale = 0;  // per_tensor only, > 0
};

// What kernels read. Columns are padded with zero codes to a multiple of 32.
struct ActivationView {
  int64_t tokens = 0;
  int64_t padded_columns = 0;
  const int8_t* codes = nullptr;     // [tokens, padded_columns]
  const float* scales = nullptr;     // [tokens, padded_columns / 32]
  const float* sums = nullptr;       // [tokens, padded_columns / 32]: scale * sum of the block's codes
  const float* half_sums = nullptr;  // [tokens, padded_columns / 16]: the same per 16 columns
};

// Reuse one object per operator input: its buffer only grows.
class QuantizedActivations {
 public:
  // x: [tokens, columns], rows `stride` floats apart. Throws Error{invalid_input} for negative sizes or a bad tensor_scale.
  // `make` computes rows [begin, end) of x, a few at a time, on the thread that quantizes them next.
  using RowMaker = std::function<void(int64_t begin, int64_t end)>;
  void quantize(const float* x, int64_t tokens, int64_t columns, int64_t stride, const QuantizeOptions& options = {}, const RowMaker& make = {});

  int64_t tokens() const { return view_.tokens; }
  int64_t columns() const { return columns_; }
  const ActivationView& view() const { return view_; }
  // [columns]: scale * code of one row.
  void decode_row(int64_t token, float* values) const;

 private:
  AlignedBuffer buffer_;
  ActivationView view_;
  int64_t columns_ = 0;
};

}  // namespace frugal::kernels
