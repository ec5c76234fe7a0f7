// Products with grouped integers of 1 to 8 bits. 32 codes fill exactly `bits` words whatever the width, so a lane takes 32 columns
// at a time and unpacks them in registers; a warp has one row of the weight.
#include <type_traits>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/operators.h"

namespace frugal::kernels::cuda {
namespace {

constexpr int kWarps = 8, kChunk = 32;

template <int Bits>
struct Codes {
  uint32_t words[Bits + 1];
  // Words of a row's end that are not there read as 0.
  __device__ Codes(const Grouped& w, int64_t row, int64_t chunk) {
    const int64_t per_row = (w.columns * Bits + 31) / 32;
    for (int i = 0; i < Bits; ++i) words[i] = chunk * Bits + i < per_row ? w.codes[row * per_row + chunk * Bits + i] : 0;
    words[Bits] = 0;
  }
  __device__ float operator[](int i) const {
    const int bit = i * Bits;
    const uint64_t pair = static_cast<uint64_t>(words[bit / 32 + 1]) << 32 | words[bit / 32];
    return static_cast<float>(static_cast<uint32_t>(pair >> (bit % 32)) & ((1u << Bits) - 1));
  }
};

template <int Bits>
__device__ float weight_at(const Grouped& w, int64_t row, int64_t column, float code) {
  const int64_t groups = (w.columns + w.group_size - 1) / w.group_size, at = row * groups + column / w.group_size;
  return (code - (w.zeros ? w.zeros[at] : static_cast<float>(1 << (Bits - 1)))) * w.scales[at];
}

template <int Bits, int Tokens>
__global__ void product(Grouped w, const float* x, float* out) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (row >= w.rows) return;
  float sum[Tokens] = {};
  for (int64_t chunk = threadIdx.x % 32; chunk * kChunk < w.columns; chunk += 32) {
    const Codes<Bits> codes(w, row, chunk);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      const int64_t column = chunk * kChunk + i;
      if (column >= w.columns) break;
      const float weight = weight_at<Bits>(w, row, column, codes[i]);
      for (int t = 0; t < Tokens; ++t) sum[t] += weight * x[t * w.columns + column];
    }
  }
  for (int t = 0; t < Tokens; ++t) {
    const float total = warp_sum(sum[t]);
    if (threadIdx.x % 32 == 0) out[t * w.rows + row] = total;
  }
}

template <int Bits>
__global__ void decode(Grouped w, float* out) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (row >= w.rows) return;
  for (int64_t chunk = threadIdx.x % 32; chunk * kChunk < w.columns; chunk += 32) {
    const Codes<Bits> codes(w, row, chunk);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      const int64_t column = chunk * kChunk + i;
      if (column < w.columns) out[row * w.columns + column] = weight_at<Bits>(w, row, column, codes[i]);
    }
  }
}

template <int Bits>
void launch_product(const Grouped& w, const float* x, float* out, int64_t tokens, cudaStream_t stream) {
  int64_t t = 0;
  const unsigned blocks = blocks_for(w.rows, kWarps);
  for (; t + 4 <= tokens; t += 4) product<Bits, 4><<<blocks, kWarps * 32, 0, stream>>>(w, x + t * w.columns, out + t * w.rows);
  for (; t < tokens; ++t) product<Bits, 1><<<blocks, kWarps * 32, 0, stream>>>(w, x + t * w.columns, out + t * w.rows);
}

// Calls f(integral_constant<Bits>) for the width of the weight.
template <int Bits = 1, typename F>
const char* for_width(int bits, const F& f) {
  if constexpr (Bits > 8) {
    return "grouped integers have 1 to 8 bits";
  } else {
    if (bits != Bits) return for_width<Bits + 1>(bits, f);
    f(std::integral_constant<int, Bits>{});
    return outcome();
  }
}

}  // namespace

const char* grouped_linear(const Grouped& weight, const float* x, float* out, int64_t tokens, void* stream) {
  if (weight.rows == 0 || tokens == 0) return nullptr;
  return for_width(weight.bits, [&](auto bits) { launch_product<decltype(bits)::value>(weight, x, out, tokens, as_stream(stream)); });
}

const char* grouped_decode(const Grouped& weight, float* out, void* stream) {
  if (weight.rows == 0 || weight.columns == 0) return nullptr;
  const unsigned blocks = blocks_for(weight.rows, kWarps);
  return for_width(weight.bits, [&](auto bits) { decode<decltype(bits)::value><<<blocks, kWarps * 32, 0, as_stream(stream)>>>(weight, out); });
}

}  // namespace frugal::kernels::cuda
