// Wanda, arXiv 2306.11695 (Sun et al., 2023), equation 1: the score of a weight is |W_ij| ||X_j||_2, compared within each output
// row; no weight is updated. N:M compares within each M neighbours of a row.
//
// As the paper: inputs are those that the already pruned blocks put out. Nothing differs.
// Cost: one selection per row.
#include "prune/wanda.h"

#include <ATen/ATen.h>

#include "chain/grid.h"

namespace frugal::prune {
namespace {

void run(chain::BlockContext& context, const Options& options) {
  const Pattern pattern = read_pattern(options);
  for (chain::Matrix& matrix : context.matrices()) {
    chain::require_finite(matrix.weight, matrix.name);
    const Tensor& norm = matrix.statistics().norm;
    chain::require_finite(norm, matrix.name + ", its inputs");
    matrix.store_masked(matrix.weight, wanda(matrix.weight, norm, matrix.mask, pattern), pattern.n, pattern.m);
  }
}

}  // namespace

Tensor wanda(const Tensor& weight, const Tensor& norm, const Tensor& kept, const Pattern& pattern) {
  return keep_highest(weight.abs() * norm, kept, pattern, Compared::row);
}

chain::StepRow wanda_row() {
  chain::StepRow row;
  row.id = "wanda";
  row.title = "Wanda";
  row.leaf = "prune";
  row.arxiv = "2306.11695";
  row.summary = "drops, in each output row, the weights of smallest magnitude times input norm";
  row.options = pattern_options();
  row.function = {
      .effect = chain::StepEffect::mask, .needs = [](const Options&) -> unsigned { return chain::kNeedsMagnitude; }, .run_block = run, .sequential = true};
  row.claims = {{.statement = "half of the weights dropped: perplexity under magnitude pruning",
                 .model = "S",
                 .baseline = {"magnitude:sparsity=0.5"},
                 .method = {"wanda:sparsity=0.5"}}};
  return row;
}

}  // namespace frugal::prune
