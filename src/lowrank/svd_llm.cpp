// SVD-LLM, arXiv 2403.07378 (Wang et al., 2024). Truncation-aware whitening: with X^T X = C C^T, singular values of W C are exactly
// what dropping a component costs in the layer's output (theorem 3.2), so cutting the smallest is optimal:
// W ~ U_k S_k V_k^T C^-1. Layer-wise closed-form update (section 3.3 of its first versions): once earlier layers are compressed,
// the left factor is refitted to the inputs that they now put out.
//
// Different:
//  - Where out <= in, U_k S_k V_k^T C^-1 = U_k U_k^T W is used: no factor is inverted.
//  - Inputs of each block come from the compressed blocks before it, for the whitening as well. That is the update across
//    blocks; the closed form (update=true) works within a block, on the sample: for o after q, k, v, for down after gate and
//    up. It has a ridge, because a sample of 1,024 rows would overfit hundreds of columns.
// Cost: eigenvectors as for svd and in^3 / 3 for the Cholesky of each matrix; update: one run of the block on the sample.
#include "lowrank/svd_llm.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "chain/grid.h"

namespace frugal::lowrank {
namespace {

using nn::InputPoint;

// What reaches `point` on the calibration sample, with the weights as they are now.
Tensor current_inputs(chain::BlockContext& context, InputPoint point) {
  Tensor seen;
  const nn::InputTap tap = [&](InputPoint at, const Tensor& input) {
    if (at == point) seen = input;
  };
  if (point == InputPoint::mlp_output) {
    context.block.mlp(context.statistics(InputPoint::mlp_input).sample, tap);
    return seen;
  }
  const Tensor& sample = context.statistics(InputPoint::attention_input).sample;
  std::vector<nn::SequenceSlice> slices;
  for (int64_t begin = 0; begin < sample.size(0); begin += context.sequence_length) {
    slices.push_back({begin, std::min(context.sequence_length, sample.size(0) - begin), nullptr});
  }
  context.block.attend(sample, slices, nn::Model::positions(slices), tap);
  return seen;
}

void run(chain::BlockContext& context, const Options& options) {
  const double damping = options.number("damping");
  for (const InputPoint point : nn::kInputPoints) {
    const bool follows = point == InputPoint::attention_output || point == InputPoint::mlp_output;
    for (chain::Matrix& matrix : context.matrices_at(point)) {
      require_dense(matrix);
      const chain::InputStatistics& statistics = matrix.statistics();
      const int64_t rank = rank_for_ratio(matrix.out_features(), matrix.in_features(), options.number("ratio"));
      Factors factors = truncated(svd_llm(matrix.weight, statistics.hessian, damping), rank);
      if (follows && options.boolean("update")) {
        const Tensor targets = at::matmul(statistics.sample, matrix.weight.t());
        factors.second = updated_second(factors, targets, current_inputs(context, point), damping);
      }
      matrix.store_low_rank(factors.first, factors.second);
    }
  }
}

}  // namespace

Factors svd_llm(const Tensor& weight, const Tensor& hessian, double damping) {
  chain::require_finite(hessian, "hessian of the inputs");
  const Tensor exact = weight.to(at::kDouble);
  Tensor gram = hessian.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);
  const double mean = std::max(gram.diagonal().mean().item<double>(), 1e-12);
  double share = 0;
  for (;;) {
    const auto [root, info] = at::linalg_cholesky_ex(gram);
    if (info.item<int>() == 0) {
      return decompose(exact, at::matmul(exact, root),
                       [&root = root](const Tensor& x) { return at::linalg_solve_triangular(root, x, /*upper=*/false, /*left=*/false); });
    }
    const double more = share == 0 ? std::max(damping, 1e-8) * 1e-4 : share * 10;
    gram.diagonal().add_((more - share) * mean);
    share = more;
    if (share > 1e3) fail(ErrorKind::invalid_input, "X^T X of the inputs [{}, {}] is far from positive definite", gram.size(0), gram.size(1));
  }
}

Tensor updated_second(const Factors& factors, const Tensor& targets, const Tensor& inputs, double damping) {
  const Tensor second = factors.second.to(at::kDouble);
  const Tensor inner = at::matmul(inputs.to(at::kDouble), factors.first.to(at::kDouble).t());  // [rows, rank]
  Tensor gram = at::matmul(inner.t(), inner);
  const double ridge = std::max(damping * gram.diagonal().mean().item<double>(), 1e-12);
  gram.diagonal().add_(ridge);
  const Tensor residual = targets.to(at::kDouble) - at::matmul(inner, second.t());                       // [rows, out]
  const Tensor change = at::cholesky_solve(at::matmul(inner.t(), residual), at::linalg_cholesky(gram));  // [rank, out]
  return (second + change.t()).to(at::kFloat).contiguous();
}

chain::StepRow svd_llm_row() {
  chain::StepRow row;
  row.id = "svd-llm";
  row.title = "SVD-LLM";
  row.leaf = "lowrank";
  row.arxiv = "2403.07378";
  row.summary = "truncation after whitening by the inputs' Cholesky factor: the least change of the layer's output";
  row.options = {number_option("ratio", 0.8, 0.01, 1, "share of the parameters that is kept"),
                 boolean_option("update", true, "refit o and down to what their compressed predecessors put out"),
                 number_option("damping", 0.01, 1e-8, 10, "ridge of the refit; what makes X^T X positive definite, times 1e-4")};
  row.function = {.effect = chain::StepEffect::low_rank,
                  .needs = [](const Options& options) -> unsigned { return chain::kNeedsHessian | (options.boolean("update") ? chain::kNeedsSample : 0u); },
                  .run_block = run,
                  .sequential = true};
  row.claims = {
      {.statement = "a fifth of the parameters removed: perplexity under ASVD", .model = "S", .baseline = {"asvd:ratio=0.8"}, .method = {"svd-llm:ratio=0.8"}}};
  return row;
}

}  // namespace frugal::lowrank
