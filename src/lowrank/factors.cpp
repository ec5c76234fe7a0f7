#include "lowrank/factors.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "chain/grid.h"

namespace frugal::lowrank {

Factors decompose(const Tensor& weight, const Tensor& scaled, const std::function<Tensor(const Tensor&)>& unscale) {
  const bool wide = scaled.size(0) <= scaled.size(1);
  const Tensor gram = wide ? at::matmul(scaled, scaled.t()) : at::matmul(scaled.t(), scaled);
  const Tensor vectors = std::get<1>(at::linalg_eigh(gram)).flip(1);  // eigenvalues come in rising order
  if (wide) return {at::matmul(vectors.t(), weight), vectors};
  return {unscale(vectors.t()), at::matmul(scaled, vectors)};
}

Factors truncated(const Factors& factors, int64_t rank) {
  const Tensor first = factors.first.slice(0, 0, rank), second = factors.second.slice(1, 0, rank);
  const Tensor rows = first.norm(2, {1}), columns = second.norm(2, {0});
  const Tensor usable = (rows > 0).logical_and(columns > 0);
  const Tensor balance = at::where(usable, (rows / columns).sqrt(), at::ones_like(rows));
  return {(first / balance.unsqueeze(1)).to(at::kFloat).contiguous(), (second * balance).to(at::kFloat).contiguous()};
}

int64_t rank_for_ratio(int64_t out_features, int64_t in_features, double ratio) {
  const double numbers = ratio * static_cast<double>(out_features) * static_cast<double>(in_features);
  const auto rank = static_cast<int64_t>(numbers / static_cast<double>(out_features + in_features) + 1e-9);
  return std::clamp<int64_t>(rank, 1, std::min(out_features, in_features));
}

void require_dense(const chain::Matrix& matrix) {
  if (matrix.mask.defined()) fail(ErrorKind::invalid_input, "{}: factors of a masked matrix would lose the mask", matrix.name);
  if (matrix.name.ends_with(".first") || matrix.name.ends_with(".second")) {
    fail(ErrorKind::invalid_input, "{}: already a factor of a low-rank matrix; use one low-rank step", matrix.name);
  }
  chain::require_finite(matrix.weight, matrix.name);
}

}  // namespace frugal::lowrank
