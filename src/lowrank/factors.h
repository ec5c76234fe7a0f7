// What the low-rank methods share. Each looks for the best approximation of W root, for a root of its own (the identity, the
// mean magnitudes of the inputs, a Cholesky factor of X^T X), cuts it at a rank and undoes the root.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>

#include "chain/step.h"

namespace frugal::lowrank {

using at::Tensor;

// W [out, in] = second [out, r] * first [r, in]; exact at r = min(out, in).
struct Factors {
  Tensor first, second;
};

// Both in order of falling singular value of `scaled` = weight * root; columns of `second` are orthogonal. Everything is
// float64. `unscale(x)` returns x * root^-1 for x [r, in].
//
// The singular vectors are eigenvectors of the smaller of M M^T and M^T M, M = scaled: 0.05 s for 1536 x 576 where the SVD takes
// 0.13 s in float32. Squaring costs half of the digits, which leaves 8 in float64. When out <= in, the truncation is
// U U^T M root^-1 = U U^T W: the root need not be undone.
Factors decompose(const Tensor& weight, const Tensor& scaled, const std::function<Tensor(const Tensor&)>& unscale);

// The first `rank` components in float32, each scaled so that its column of `second` and its row of `first` have equal norms:
// both then fit the narrow formats that later steps store them in.
Factors truncated(const Factors& factors, int64_t rank);

// The rank whose factors hold the share `ratio` of out * in numbers, at least 1 and at most min(out, in).
int64_t rank_for_ratio(int64_t out_features, int64_t in_features, double ratio);

// Throws Error{invalid_input} for what cannot be factored: a masked matrix, a factor, numbers that are not finite.
void require_dense(const chain::Matrix& matrix);

}  // namespace frugal::lowrank
