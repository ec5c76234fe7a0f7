// Operators of ops.h and packed_linear.h into tensors that exist: no allocation and no gradient, for a block that serves. Tensors
// are contiguous float32 on the CPU, of the shapes that the allocating operator makes; in and out may be one tensor.
#pragma once

#include "ops/ops.h"
#include "ops/packed_linear.h"

namespace frugal::ops {

void rms_norm_into(const Tensor& x, const Tensor& weight, double eps, double weight_offset, Tensor& out);
void rope_in_place(Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin);
void gated_activation_into(const Tensor& gate, const Tensor& up, Gate kind, Tensor& out);
void attention_into(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const AttentionRange> ranges, const AttentionOptions& options, Tensor& out);
void cached_attention_into(const Tensor& q, const CacheLayout& layout, std::span<const CachedSequence> sequences, const AttentionOptions& options, Tensor& out);
void quantize_into(const Tensor& x, const formats::ActivationQuant& quant, QuantizedActivations& out);
// All matrices in one parallel region.
void packed_linear_into(std::span<const PackedMatrix* const> matrices, const QuantizedActivations& activations, std::span<Tensor* const> outputs);
// target += x; both have the same number of values.
void add_in_place(Tensor& target, const Tensor& x);

}  // namespace frugal::ops
