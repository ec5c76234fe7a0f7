// The operators of decoding and prefill for NVIDIA GPUs. Pointers are to device memory, rows are contiguous float32, sizes are
// checked by the caller (ops/register_cuda.cpp); `stream` is a cudaStream_t. Each returns null once its kernel is launched, else
// what CUDA says. Dense products are cuBLAS's, through ATen.
// Compiled where nvcc is there. Never run so far: no machine that we had lent a GPU for it. tests/test_ops.py compares them with
// torch wherever torch.cuda is available.
#pragma once

#include <cstdint>

namespace frugal::kernels::cuda {

// out = x / sqrt(mean(x^2) + eps) * (weight + weight_offset). x, out [rows, columns]; weight [columns].
const char* rms_norm(const float* x, const float* weight, float* out, int64_t rows, int64_t columns, float eps, float weight_offset, void* stream);

// x, out [tokens, heads, head_dim]; positions [tokens] index cos, sin [positions, half] and are not checked; channels i and i + half are a pair.
struct Rope {
  int64_t tokens = 0, heads = 0, head_dim = 0, half = 0;
};
const char* rope(const float* x, const int64_t* positions, const float* cos, const float* sin, float* out, const Rope& size, void* stream);

// out = f(gate) * up, `count` values each; f: SiLU, or GELU by tanh.
const char* gated_activation(const float* gate, const float* up, float* out, int64_t count, bool gelu, void* stream);

// Row t sees rows first[t] to t, of them the last `window` (0: all). q, out [tokens, heads, dim]; k, v [tokens, kv_heads, dim];
// dim at most kMaxDim; first [tokens] never decreases.
struct Attention {
  int64_t tokens = 0, heads = 0, kv_heads = 0, dim = 0, window = 0;
  float scale = 1;
};
inline constexpr int64_t kMaxDim = 256;
const char* attention(const float* q, const float* k, const float* v, const int64_t* first, float* out, const Attention& size, void* stream);

// Grouped integers as formats/grouped.h has them: codes [rows, ceil(columns * bits / 32)] words; scales, zeros [rows, groups];
// zeros null: 2^(bits - 1).
struct Grouped {
  const uint32_t* codes = nullptr;
  const float* scales = nullptr;
  const float* zeros = nullptr;
  int64_t rows = 0, columns = 0, group_size = 0;
  int bits = 4;
};
// out [tokens, rows] = x [tokens, columns] * weight^T, for few tokens: every four read the weight once.
const char* grouped_linear(const Grouped& weight, const float* x, float* out, int64_t tokens, void* stream);
// out [rows, columns]
const char* grouped_decode(const Grouped& weight, float* out, void* stream);

}  // namespace frugal::kernels::cuda
