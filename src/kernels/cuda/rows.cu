// Operators on rows and single values: rms_norm, rope, gated_activation. See operators.h.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/operators.h"

namespace frugal::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void rms_norm_row(const float* x, const float* weight, float* out, int64_t columns, float eps, float weight_offset) {
  const float* row = x + blockIdx.x * columns;
  float sum = 0;
  for (int64_t i = threadIdx.x; i < columns; i += kThreads) sum += row[i] * row[i];
  __shared__ float partial[kThreads / 32];
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = warp_sum(threadIdx.x % 32 < kThreads / 32 ? partial[threadIdx.x % 32] : 0.0f);
  const float factor = rsqrtf(sum / static_cast<float>(columns) + eps);
  for (int64_t i = threadIdx.x; i < columns; i += kThreads) out[blockIdx.x * columns + i] = row[i] * factor * (weight[i] + weight_offset);
}

// One thread for each channel of the first of a pair, and for each channel that is not rotated.
__global__ void rope_channels(const float* x, const int64_t* positions, const float* cos, const float* sin, float* out, Rope size) {
  const int64_t channels = size.head_dim - size.half, index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= size.tokens * size.heads * channels) return;
  const int64_t channel = index % channels, head = index / channels, token = head / size.heads;
  const float* from = x + head * size.head_dim;
  float* to = out + head * size.head_dim;
  if (channel >= size.half) {
    to[channel + size.half] = from[channel + size.half];
    return;
  }
  const float c = cos[positions[token] * size.half + channel], s = sin[positions[token] * size.half + channel];
  const float a = from[channel], b = from[channel + size.half];
  to[channel] = a * c - b * s;
  to[channel + size.half] = b * c + a * s;
}

__global__ void gate(const float* gate, const float* up, float* out, int64_t count, bool gelu) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const float g = gate[i];
  const float activated = gelu ? 0.5f * g * (1 + tanhf(0.7978845608028654f * (g + 0.044715f * g * g * g))) : g / (1 + expf(-g));
  out[i] = activated * up[i];
}

}  // namespace

const char* rms_norm(const float* x, const float* weight, float* out, int64_t rows, int64_t columns, float eps, float weight_offset, void* stream) {
  if (rows > 0) rms_norm_row<<<static_cast<unsigned>(rows), kThreads, 0, as_stream(stream)>>>(x, weight, out, columns, eps, weight_offset);
  return outcome();
}

const char* rope(const float* x, const int64_t* positions, const float* cos, const float* sin, float* out, const Rope& size, void* stream) {
  const int64_t count = size.tokens * size.heads * (size.head_dim - size.half);
  if (count > 0) rope_channels<<<blocks_for(count, kThreads), kThreads, 0, as_stream(stream)>>>(x, positions, cos, sin, out, size);
  return outcome();
}

const char* gated_activation(const float* gate_values, const float* up, float* out, int64_t count, bool gelu, void* stream) {
  if (count > 0) gate<<<blocks_for(count, kThreads), kThreads, 0, as_stream(stream)>>>(gate_values, up, out, count, gelu);
  return outcome();
}

}  // namespace frugal::kernels::cuda
