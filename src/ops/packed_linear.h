// Linear products with a weight that is not a differentiable tensor: integer panels, and floats on batch-invariant kernels.
// No gradient but frozen_linear's.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

#include "formats/activation_quant.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/quantize_activations.h"

namespace frugal::ops {

using kernels::IntegerRows;
using kernels::PackedMatrix;
using kernels::QuantizedActivations;
using kernels::supports_packing;

// x [tokens, features] float32 -> 8-bit codes: blocks of 32 with a scale each (kind none), or one scale per token or tensor.
std::unique_ptr<QuantizedActivations> quantize_activations(const at::Tensor& x, const formats::ActivationQuant& quant);

// -> [tokens, matrix.rows()] float32.
at::Tensor packed_linear(const PackedMatrix& matrix, const QuantizedActivations& activations);

// x [tokens, in] float32 times weight [out, in] (float32, float16, bfloat16) transposed -> [tokens, out] float32.
// `invariant`: own kernels, where a row's result does not depend on the other rows; otherwise the BLAS, which is faster for
// many rows. With a gradient wanted it is dense_linear.
at::Tensor float_linear(const at::Tensor& x, const at::Tensor& weight, bool invariant);

// x [tokens, in] times a weight [out, in] float32 that takes no gradient; backward asks for the weight again, so that nothing of its size is kept
// between the two. What `weight` refers to must live until then.
at::Tensor frozen_linear(const at::Tensor& x, std::function<at::Tensor()> weight);

}  // namespace frugal::ops
