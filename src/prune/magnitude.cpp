// Magnitude pruning: the weights of smallest absolute value become zero. The baseline of all pruning without retraining.
// scope=layer takes the share from each matrix, scope=row from each output of it, scope=block from a block's matrices
// together, so that layers of large weights keep more. (A threshold over the whole model would need every block before the
// first one is written; the blocks of one model differ far less from each other than the matrices within them.)
//
// Reads no calibration. Cost: one selection over the weights.
#include "prune/magnitude.h"

#include <ATen/ATen.h>

#include "chain/grid.h"
#include "prune/pattern.h"

namespace frugal::prune {
namespace {

// Masks of several matrices under one threshold.
std::vector<Tensor> keep_of_block(const std::vector<chain::Matrix>& matrices, const Pattern& pattern) {
  std::vector<Tensor> scores, masks;
  std::vector<int64_t> sizes;
  for (const chain::Matrix& matrix : matrices) {
    const Tensor mask = matrix.mask.defined() ? matrix.mask : at::ones_like(matrix.weight, at::kBool);
    scores.push_back(matrix.weight.abs().reshape({1, -1}));
    masks.push_back(mask.reshape({1, -1}));
    sizes.push_back(matrix.weight.numel());
  }
  std::vector<Tensor> parts = keep_highest(at::cat(scores, 1), at::cat(masks, 1), pattern, Compared::matrix).split_with_sizes(sizes, 1);
  for (size_t i = 0; i < parts.size(); ++i) parts[i] = parts[i].reshape(matrices[i].weight.sizes());
  return parts;
}

void run(chain::BlockContext& context, const Options& options) {
  const Pattern pattern = read_pattern(options);
  const std::string& scope = options.text("scope");
  std::vector<chain::Matrix> matrices = context.matrices();
  for (const chain::Matrix& matrix : matrices) chain::require_finite(matrix.weight, matrix.name);
  std::vector<Tensor> keep;
  if (scope == "block" && pattern.m == 0) {
    keep = keep_of_block(matrices, pattern);
  } else {
    const Compared compared = scope == "row" ? Compared::row : Compared::matrix;
    for (const chain::Matrix& matrix : matrices) keep.push_back(keep_highest(matrix.weight.abs(), matrix.mask, pattern, compared));
  }
  for (size_t i = 0; i < matrices.size(); ++i) matrices[i].store_masked(matrices[i].weight, keep[i], pattern.n, pattern.m);
}

}  // namespace

chain::StepRow magnitude_row() {
  chain::StepRow row;
  row.id = "magnitude";
  row.title = "Magnitude pruning";
  row.leaf = "prune";
  row.arxiv = "baseline";
  row.summary = "drops the weights of smallest absolute value";
  row.options = pattern_options();
  row.options.push_back(choice_option("scope", "layer", {"layer", "row", "block"}, "what one threshold spans (unstructured)"));
  row.function = {.effect = chain::StepEffect::mask, .run_block = run};
  row.reference = "baseline";
  return row;
}

}  // namespace frugal::prune
