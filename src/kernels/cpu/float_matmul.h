// out = x * W^T in float, batch-invariant: each entry is one fixed sequence of fp32 multiply-adds over 8 (AVX2) or 16
// (AVX-512) lanes, whatever the number of tokens and the size of the team. The weights are read as they are mapped, unpacked.
#pragma once

#include <cstdint>

namespace frugal::kernels {

enum class FloatType : uint8_t { f32, f16, bf16 };

struct FloatMatrix {
  const void* data = nullptr;  // [rows, columns]; any alignment
  FloatType type = FloatType::f32;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t stride = 0;  // elements between rows; 0: columns
};

// x: [tokens, weight.columns], rows x_stride floats apart (0: columns). out: [tokens, weight.rows], rows out_stride apart (0:
// rows). Throws Error{invalid_input} for negative sizes or short strides.
struct FloatProduct {
  const float* x = nullptr;
  int64_t x_stride = 0;
  int64_t tokens = 0;
  float* out = nullptr;
  int64_t out_stride = 0;
  bool accumulate = false;  // out += instead of out =
};
void matmul_float(const FloatMatrix& weight, const FloatProduct& product);

}  // namespace frugal::kernels
