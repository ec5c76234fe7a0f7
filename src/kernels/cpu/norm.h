// Norms over rows. x and out: [rows, columns], rows `stride` / `out_stride` floats apart; out may be x. Sums are taken in fp32
// over 8 or 16 lanes; a row's result depends on the row alone. On the compute team.
#pragma once

#include <cstdint>

namespace frugal::kernels {

struct NormOptions {
  float eps = 1e-5f;
  float weight_offset = 0;  // 1 for Gemma, which stores weight - 1
};

struct NormRows {
  const float* x = nullptr;
  int64_t stride = 0;  // 0: columns
  float* out = nullptr;
  int64_t out_stride = 0;  // 0: columns
  int64_t rows = 0;
  int64_t columns = 0;
};

// out = x / sqrt(mean(x^2) + eps) * (weight + weight_offset); weight [columns] or null (arXiv 1910.07467).
void rms_norm(const NormRows& rows, const float* weight, const NormOptions& options);

// Gradients of rms_norm by x (overwritten) and by weight (added to; null: not wanted), from `gradient`, the one by its output. All contiguous.
// The weight's is summed over blocks of 32 rows and then over the blocks in order: it does not depend on the number of threads.
struct NormGradients {
  const float* x = nullptr;          // [rows, columns]
  const float* gradient = nullptr;   // [rows, columns]
  float* x_gradient = nullptr;       // [rows, columns]
  float* weight_gradient = nullptr;  // [columns]
  int64_t rows = 0;
  int64_t columns = 0;
};
void rms_norm_backward(const NormGradients& rows, const float* weight, const NormOptions& options);

// out = (x - mean) / sqrt(variance + eps) * (weight + weight_offset) + bias; weight, bias [columns] or null (arXiv 1607.06450).
void layer_norm(const NormRows& rows, const float* weight, const float* bias, const NormOptions& options);

}  // namespace frugal::kernels
