// Operators of ops.h and packed_linear.h into tensors that exist: no allocation and no gradient, for a block that serves. Tensors
// are contiguous float32 on the CPU, of the shapes that the allocating operator makes; in and out may be one tensor.
#pragma once

#include <functional>
#include <limits>

#include "ops/ops.h"
#include "ops/packed_linear.h"

namespace frugal::ops {

// Rows (of the first dimension) that a call works on. Called inside of for_each_rows or quantize_into, an operator runs on the thread
// that calls it: what follows on the same rows finds them in that thread's cache, and one join serves for all.
struct RowRange {
  int64_t begin = 0, end = std::numeric_limits<int64_t>::max();  // cut at the number of rows
};
using RowWork = std::function<void(RowRange)>;

// Calls work on ranges that cover [0, rows), on the team; `values` is what a row reads and writes, about.
void for_each_rows(int64_t rows, int64_t values, const RowWork& work);

void rms_norm_into(const Tensor& x, const Tensor& weight, double eps, double weight_offset, Tensor& out, RowRange range = {});
void rope_in_place(Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin, RowRange range = {});
void gated_activation_into(const Tensor& gate, const Tensor& up, Gate kind, Tensor& out, RowRange range = {});
void attention_into(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const AttentionRange> ranges, const AttentionOptions& options, Tensor& out);
void cached_attention_into(const Tensor& q, std::span<const CachedSequence> sequences, const AttentionOptions& options, Tensor& out);
// `make` computes rows of x just before they are quantized.
void quantize_into(const Tensor& x, const formats::ActivationQuant& quant, QuantizedActivations& out, const RowWork& make = {});
// All matrices in one parallel region.
void packed_linear_into(std::span<const PackedMatrix* const> matrices, const QuantizedActivations& activations, std::span<Tensor* const> outputs);
// target += x, of one shape.
void add_in_place(Tensor& target, const Tensor& x, RowRange range = {});

}  // namespace frugal::ops
