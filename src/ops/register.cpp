// The operators with torch's dispatcher: torch.ops.load_library("libfrugal_ops.so"), then torch.ops.frugal.* in Python. The
// bodies choose between the kernel and the differentiable definition themselves, hence one body for all keys but CUDA's
// (register_cuda.cpp).
#include <ATen/ATen.h>
#include <torch/library.h>

#include "base/error.h"
#include "ops/registered.h"

namespace frugal::ops {

Gate gate_of(std::string_view name) {
  if (name == "silu") return Gate::silu;
  if (name == "gelu_tanh") return Gate::gelu_tanh;
  fail(ErrorKind::invalid_input, "gated_activation: kind must be silu or gelu_tanh, is \"{}\"", printable(name));
}

std::vector<AttentionRange> ranges_of(const Tensor& q, at::IntArrayRef lengths) {
  std::vector<AttentionRange> ranges;
  int64_t begin = 0;
  for (const int64_t length : lengths) {
    if (length < 0) fail(ErrorKind::invalid_input, "attention: length {} is negative", length);
    ranges.push_back({begin, length});
    begin += length;
  }
  if (begin != q.size(0)) fail(ErrorKind::invalid_input, "attention: lengths add up to {}, q has {} rows", begin, q.size(0));
  return ranges;
}

namespace {

Tensor gated(const Tensor& gate, const Tensor& up, std::string_view kind) { return gated_activation(gate, up, gate_of(kind)); }

Tensor causal_attention(const Tensor& q, const Tensor& k, const Tensor& v, at::IntArrayRef lengths, double scale, int64_t window) {
  return attention(q, k, v, ranges_of(q, lengths), {scale, window});
}

Tensor grouped(const Tensor& x, const Tensor& codes, const Tensor& scales, const std::optional<Tensor>& zeros, int64_t bits, int64_t group_size) {
  return grouped_linear(x, {codes, scales, zeros, bits, group_size});
}

}  // namespace

TORCH_LIBRARY(frugal, library) {
  library.def("rms_norm(Tensor x, Tensor weight, float eps=1e-6, float weight_offset=0) -> Tensor", rms_norm);
  library.def("rope(Tensor x, Tensor positions, Tensor cos, Tensor sin) -> Tensor", rope);
  library.def("gated_activation(Tensor gate, Tensor up, str kind=\"silu\") -> Tensor", gated);
  library.def("attention(Tensor q, Tensor k, Tensor v, int[] lengths, float scale, int window=0) -> Tensor", causal_attention);
  library.def("grouped_linear(Tensor x, Tensor codes, Tensor scales, Tensor? zeros, int bits, int group_size) -> Tensor", grouped);
}

}  // namespace frugal::ops
