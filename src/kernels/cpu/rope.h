// Rotary positions (arXiv 2104.09864), in place. The caller's tables hold any scaling (linear, NTK, YaRN, llama3).
#pragma once

#include <cstdint>

namespace frugal::kernels {

enum class RopePairs : uint8_t {
  halves,       // (x[i], x[i + rotary_dim / 2]): GPT-NeoX, Hugging Face's Llama
  interleaved,  // (x[2i], x[2i + 1]): GPT-J, GGUF's Llama, whose weights are permuted
};

struct RopeOptions {
  int64_t heads = 0;
  int64_t head_dim = 0;
  int64_t rotary_dim = 0;  // even, <= head_dim; the rest of a head is left as it is
  RopePairs pairs = RopePairs::halves;
};

// x: [rows, heads, head_dim], rows `stride` floats apart. cos, sin: [table_rows, rotary_dim / 2]; positions [rows] index it.
// Throws Error{invalid_input} for a position outside the table.
void rope(float* x, int64_t rows, int64_t stride, const int64_t* positions, const float* cos, const float* sin, int64_t table_rows, const RopeOptions& options);

}  // namespace frugal::kernels
