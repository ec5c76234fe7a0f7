// Products of float matrices on our own kernel (kernels/cpu/gemm.h): as fast as the BLAS or faster, and of each number the same bits whatever the other
// rows and the number of threads.
#pragma once

#include <ATen/core/Tensor.h>

namespace frugal::ops {

// a [m, k], b [k, n], float32 or 16-bit floats on the CPU, any strides (a transposed view costs no copy) -> [m, n] float32. Their numbers are rounded to
// `precision` first. No gradient.
at::Tensor gemm(const at::Tensor& a, const at::Tensor& b, at::ScalarType precision = at::kFloat);
// c = alpha * a b, or c += alpha * a b; c [m, n] float32 with contiguous rows.
void gemm_into(at::Tensor& c, const at::Tensor& a, const at::Tensor& b, double alpha = 1, bool accumulate = false, at::ScalarType precision = at::kFloat);

// x [tokens, in] times weight [out, in] float32 transposed -> [tokens, out], with gradients for both. Under autocast (autocast.h) the weight is rounded as it
// is packed, and its gradient is float32.
at::Tensor dense_linear(const at::Tensor& x, const at::Tensor& weight);

}  // namespace frugal::ops
