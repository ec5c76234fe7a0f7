// Integer weight matrices in the order in which the kernel reads them, and their product with quantized activations.
//
// A panel holds 16 rows. Along a panel the bytes are one contiguous stream: per group of columns the scales (and minimums) of
// the 16 rows, then the codes in units of 16 columns: `bits` * 32 bytes each, in planes of 4, 2 or 1 bit that unpack with a
// shift and a mask in registers. A lane of a vector holds 4 consecutive columns of one row, so that 4 activation bytes,
// broadcast, meet 8 (AVX2) or 16 (AVX-512) rows in one integer dot-product instruction.
//
// Scales are kept without loss in the smallest of three forms: fp16; fp32; or an 8-bit integer times an fp32 per 256 columns,
// which is found by a common divisor (GGUF's K formats). The minimums are dropped when every one is -2^(bits-1) * scale.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "kernels/cpu/aligned_buffer.h"
#include "kernels/cpu/quantize_activations.h"

namespace frugal::kernels {

// w[r, c] = scale[r, c / group] * code[r, c] + minimum[r, c / group]
struct IntegerRows {
  int64_t rows = 0;
  int64_t columns = 0;
  int bits = 4;        // 2, 3, 4, 5, 6 or 8; codes are in [0, 2^bits)
  int64_t group = 32;  // a multiple of 16, or >= columns; the last group of a row may be ragged
  // Fills codes [columns], scales and minimums [ceil(columns / group)]. Called from the team's threads at once, for different
  // rows, and for some rows more than once.
  std::function<void(int64_t row, uint8_t* codes, float* scales, float* minimums)> read_row;
};

// False: multiply in float (float_matmul.h) or re-encode.
bool supports_packing(int bits, int64_t group, int64_t columns);

enum class ScaleForm : uint8_t { fp16, fp32, int8_times_fp32 };

class PackedMatrix {
 public:
  PackedMatrix() = default;
  // Packs for active_isa(). Throws Error{unsupported} where supports_packing is false, Error{invalid_input} for bad sizes or a
  // code out of range, Error{out_of_memory}.
  explicit PackedMatrix(const IntegerRows& source);

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  int bits() const { return bits_; }
  uint64_t bytes() const { return buffer_.bytes(); }
  bool empty() const { return rows_ == 0; }
  // values: [columns], exactly scale * code + minimum (an embedding lookup from the packed form).
  void decode_row(int64_t row, float* values) const;

  // Layout, for the kernels.
  struct Layout {
    int lane_rows = 8;  // rows per vector: 8 or 16
    int block = 32;     // columns per partial sum, 16 or 32
    int64_t units = 0;  // units of 16 columns in a row
    int64_t units_per_group = 0;
    int64_t groups = 0;
    int64_t groups_per_super = 0;  // int8_times_fp32: groups that share an fp32
    ScaleForm scale_form = ScaleForm::fp16;
    bool has_minimums = false;
    int64_t panel_bytes = 0;
  };
  const Layout& layout() const { return layout_; }
  const std::byte* data() const { return buffer_.data(); }

 private:
  int64_t rows_ = 0;
  int64_t columns_ = 0;
  int bits_ = 0;
  Layout layout_;
  AlignedBuffer buffer_;
};

// out[t, r] = sum over blocks b: scale[r, b] * activation_scale[t, b] * dot(codes) + minimum[r, b] * activation_sum[t, b]
struct PackedProduct {
  const PackedMatrix* matrix = nullptr;
  float* out = nullptr;    // [tokens, matrix->rows()]
  int64_t out_stride = 0;  // floats between tokens, >= matrix->rows()
};

// All products read the same activations, in one parallel region (Q/K/V; gate and up). Runs on the compute team. The result
// of a token does not depend, to the bit, on the other tokens of the call, the other products or the size of the team.
// Throws Error{invalid_input} when columns differ, Error{internal} when a matrix was packed for another instruction set.
void matmul_packed(std::span<const PackedProduct> products, const QuantizedActivations& activations);
void matmul_packed(const PackedMatrix& matrix, const QuantizedActivations& activations, float* out, int64_t out_stride);

}  // namespace frugal::kernels
