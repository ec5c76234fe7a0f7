// The float product of the kinds of Linear; internal to nn/.
#pragma once

#include <ATen/core/Tensor.h>

namespace frugal::nn {

// x [tokens, in] float32 times weight [out, in] (float32, float16, bfloat16) transposed -> [tokens, out] float32.
// `invariant`: own kernels, where a row's result does not depend on the other rows; otherwise the BLAS, which is faster for
// many rows. With a gradient wanted always ATen.
at::Tensor float_product(const at::Tensor& x, const at::Tensor& weight, bool invariant);

}  // namespace frugal::nn
