// Mixed precision (arXiv 1710.03740 for float16, 1905.12322 for bfloat16): while an Autocast lives, the operators of ops.h and gemm.h give activations of
// 16 bits, and keep such for backward. As torch.autocast does, but on processors without 16-bit arithmetic: products are of 16-bit numbers and their sums
// float32 (kernels/cpu/gemm.h), norms, rotations, softmax and gates are computed in float32 and rounded once. Weights stay float32 and get float32 gradients;
// so does the residual stream, which is a sum and no operator's output.
#pragma once

#include <ATen/core/Tensor.h>

namespace frugal::ops {

// Of the thread that makes it; the one that was there before comes back.
class Autocast {
 public:
  explicit Autocast(at::ScalarType type);  // kFloat (nothing changes), kBFloat16 or kHalf
  ~Autocast();
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  at::ScalarType before_;
};

// What activations are now: kFloat where there is no Autocast.
at::ScalarType activation_type();
// What an operator computes that reads `x`: x's own type if it has 16 bits, else activation_type().
at::ScalarType activation_type(const at::Tensor& x);

}  // namespace frugal::ops
