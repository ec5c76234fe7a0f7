// Causal attention over packed sequences with an online softmax (arXiv 2205.14135): a block holds 32 rows of one head and walks
// the keys in tiles of 32 in shared memory. In the scores a lane is a key, in the values a channel; a warp has 4 rows.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/operators.h"

namespace frugal::kernels::cuda {
namespace {

constexpr int kWarps = 8, kRowsPerWarp = 4, kRows = kWarps * kRowsPerWarp, kKeys = 32;

struct Arguments {
  const float *q, *k, *v;
  const int64_t* first;
  float* out;
  Attention size;
};

// Keys have a stride of dim + 1, so that 32 lanes that read one channel of 32 keys meet 32 banks.
int64_t shared_bytes(int64_t dim) { return (kRows * dim + kKeys * (dim + 1) + kKeys * dim) * static_cast<int64_t>(sizeof(float)); }

template <int Vectors>  // of 32 channels
__global__ void attend(Arguments a) {
  extern __shared__ float shared[];
  const int64_t dim = a.size.dim, heads = a.size.heads, kv_heads = a.size.kv_heads;
  float* queries = shared;
  float* keys = queries + kRows * dim;
  float* values = keys + kKeys * (dim + 1);
  const int64_t row_begin = int64_t{blockIdx.x} * kRows, row_end = min(row_begin + kRows, a.size.tokens);
  const int64_t head = blockIdx.y, kv_head = head / (heads / kv_heads);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int64_t i = threadIdx.x; i < (row_end - row_begin) * dim; i += kWarps * 32) {
    queries[i] = a.q[((row_begin + i / dim) * heads + head) * dim + i % dim] * a.size.scale;
  }
  float maximum[kRowsPerWarp], sum[kRowsPerWarp], value[kRowsPerWarp][Vectors];
  for (int i = 0; i < kRowsPerWarp; ++i) {
    maximum[i] = -INFINITY;
    sum[i] = 0;
    for (int j = 0; j < Vectors; ++j) value[i][j] = 0;
  }
  int64_t key_begin = a.first[row_begin];
  if (a.size.window > 0) key_begin = max(key_begin, row_begin - a.size.window + 1);
  for (int64_t tile = key_begin; tile < row_end; tile += kKeys) {
    __syncthreads();
    for (int64_t i = threadIdx.x; i < kKeys * dim; i += kWarps * 32) {
      const int64_t key = i / dim, channel = i % dim, source = ((tile + key) * kv_heads + kv_head) * dim + channel;
      const bool there = tile + key < row_end;
      keys[key * (dim + 1) + channel] = there ? a.k[source] : 0;
      values[i] = there ? a.v[source] : 0;
    }
    __syncthreads();
    for (int i = 0; i < kRowsPerWarp; ++i) {  // every branch is one for the whole warp
      const int64_t own = warp * kRowsPerWarp + i, row = row_begin + own, key = tile + lane;
      if (row >= row_end) break;
      const bool seen = key >= a.first[row] && key <= row && (a.size.window == 0 || key > row - a.size.window);
      float score = -INFINITY;
      if (seen) {
        score = 0;
        for (int64_t d = 0; d < dim; ++d) score += queries[own * dim + d] * keys[lane * (dim + 1) + d];
      }
      const float next = fmaxf(maximum[i], warp_max(score));
      if (next == -INFINITY) continue;
      const float weight = expf(score - next), correction = expf(maximum[i] - next);
      sum[i] = sum[i] * correction + warp_sum(weight);
      maximum[i] = next;
      for (int j = 0; j < Vectors; ++j) value[i][j] *= correction;
      for (int e = 0; e < kKeys; ++e) {
        const float w = __shfl_sync(~0u, weight, e);
        for (int j = 0; j < Vectors; ++j) {
          const int64_t channel = lane + 32 * j;
          if (channel < dim) value[i][j] += w * values[e * dim + channel];
        }
      }
    }
  }
  for (int i = 0; i < kRowsPerWarp; ++i) {
    const int64_t row = row_begin + warp * kRowsPerWarp + i;
    if (row >= row_end) break;
    for (int j = 0; j < Vectors; ++j) {
      const int64_t channel = lane + 32 * j;
      if (channel < dim) a.out[(row * heads + head) * dim + channel] = value[i][j] / sum[i];
    }
  }
}

template <int Vectors>
const char* launch(const Arguments& a, void* stream) {
  const auto bytes = static_cast<int>(shared_bytes(a.size.dim));
  const cudaError_t error = cudaFuncSetAttribute(attend<Vectors>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return cudaGetErrorString(error);
  const dim3 grid(blocks_for(a.size.tokens, kRows), static_cast<unsigned>(a.size.heads));
  attend<Vectors><<<grid, kWarps * 32, static_cast<size_t>(bytes), as_stream(stream)>>>(a);
  return outcome();
}

}  // namespace

const char* attention(const float* q, const float* k, const float* v, const int64_t* first, float* out, const Attention& size, void* stream) {
  if (size.tokens == 0) return nullptr;
  const Arguments a = {q, k, v, first, out, size};
  if (size.dim <= 64) return launch<2>(a, stream);
  if (size.dim <= 128) return launch<4>(a, stream);
  return launch<kMaxDim / 32>(a, stream);
}

}  // namespace frugal::kernels::cuda
