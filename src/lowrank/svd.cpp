// Truncated singular value decomposition, the baseline of the low-rank methods: each matrix becomes the product of two with
// `ratio` of its parameters, the best one in the Frobenius norm.
//
// Reads no calibration. Cost: the eigenvectors of a min(out, in)^2 matrix each, about 10 min(out, in)^3 operations.
#include "lowrank/svd.h"

#include <ATen/ATen.h>

namespace frugal::lowrank {
namespace {

void run(chain::BlockContext& context, const Options& options) {
  for (chain::Matrix& matrix : context.matrices()) {
    require_dense(matrix);
    const Factors factors = truncated_svd(matrix.weight, rank_for_ratio(matrix.out_features(), matrix.in_features(), options.number("ratio")));
    matrix.store_low_rank(factors.first, factors.second);
  }
}

}  // namespace

Factors truncated_svd(const Tensor& weight, int64_t rank) {
  const Tensor exact = weight.to(at::kDouble);
  return truncated(decompose(exact, exact, [](const Tensor& x) { return x; }), rank);
}

chain::StepRow svd_row() {
  chain::StepRow row;
  row.id = "svd";
  row.title = "Truncated SVD";
  row.leaf = "lowrank";
  row.arxiv = "baseline";
  row.summary = "each matrix as the product of two: the nearest one in the Frobenius norm";
  row.options = {number_option("ratio", 0.8, 0.01, 1, "share of the parameters that is kept")};
  row.function = {.effect = chain::StepEffect::low_rank, .run_block = run};
  row.reference = "baseline";
  return row;
}

}  // namespace frugal::lowrank
