// Elementwise functions of MLPs and softmax over rows. exp is our own: at most 2 ulp over [-87, 88] (tested), 0 below -87.3 (no
// denormal results), infinity above 88.7, NaN kept.
#pragma once

#include <cstdint>

namespace frugal::kernels {

enum class GateKind : uint8_t { silu, gelu_tanh, gelu_erf, relu };

struct GateRows {
  const float* gate = nullptr;  // [rows, columns]
  int64_t gate_stride = 0;      // 0: columns
  const float* up = nullptr;    // [rows, columns] or null: no product
  int64_t up_stride = 0;
  float* out = nullptr;  // may be gate or up
  int64_t out_stride = 0;
  int64_t rows = 0;
  int64_t columns = 0;
};

// out = f(gate) * up. silu(x) = x / (1 + exp(-x)); gelu_tanh(x) = x * 0.5 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).
void gated_activation(const GateRows& rows, GateKind kind);

// Gradients of gated_activation (silu and gelu_tanh) by gate and up, from the one by its output; all [rows, columns], contiguous. A result may be
// any of the inputs.
struct GateGradientRows {
  const float *gate = nullptr, *up = nullptr, *gradient = nullptr;
  float *gate_gradient = nullptr, *up_gradient = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
};
void gated_activation_backward(const GateGradientRows& rows, GateKind kind);

// x, out: [rows, columns], contiguous; out may be x. A row of which every entry is -infinity gives zeros (softmax) or
// -infinity (log_softmax).
void softmax(const float* x, float* out, int64_t rows, int64_t columns);
void log_softmax(const float* x, float* out, int64_t rows, int64_t columns);  // the sum is kept in double

// out[i] = exp(x[i])
void exponential(const float* x, float* out, int64_t count);

}  // namespace frugal::kernels
