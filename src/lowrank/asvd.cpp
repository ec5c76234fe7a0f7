// ASVD, arXiv 2312.05821 (Yuan et al., 2023). Columns of W are scaled by the magnitude of their inputs before the truncated SVD,
// S = diag(mean|X_j|^alpha), alpha 0.5, and unscaled after it (equations 7 to 9): errors then avoid the channels that carry
// outliers. Ranks follow the sensitivity of each matrix (section 3.3), some stay dense.
//
// Different: the paper finds each matrix's perplexity at ratios 0.1 ... 0.9 with all others untouched, and searches one
// perplexity threshold for the whole model: hundreds of passes. Here, within each block, which keeps `ratio` of its own
// parameters:
//  - the error of a matrix's own output is known for every rank at once (component_energy, from X^T X);
//  - one probe of each matrix at half of its parameters, on `rows` tokens of the sample, tells how much of that error
//    reaches what the attention or the MLP adds to the residual stream: its sensitivity;
//  - ratios of a grid in steps of 0.05, or leaving the matrix dense, are then dealt out by error saved per parameter.
// search=false gives every matrix the same ratio.
// Cost: eigenvectors as for svd, and one run of attention and MLP on `rows` tokens for each matrix.
#include "lowrank/asvd.h"

#include <ATen/ATen.h>

#include <cmath>

namespace frugal::lowrank {
namespace {

constexpr double kProbe = 0.5;

std::vector<double> ratio_grid() {
  std::vector<double> grid;
  for (int step = 2; step < 20; ++step) grid.push_back(0.05 * step);
  return grid;
}

struct Cut {
  Factors factors;  // full rank
  Tensor tail;      // [r + 1] float64: error of the own output when cut at a rank
  double sensitivity;
};

// Mean squared change of what the half of the block adds, over the change of the matrix's own output.
double probe(chain::BlockContext& context, chain::Matrix& matrix, const Cut& cut, int64_t rows) {
  const int64_t rank = rank_for_ratio(matrix.out_features(), matrix.in_features(), kProbe);
  const double own = cut.tail[rank].item<double>();
  if (!(own > 0)) return 0;
  const Tensor input = context.statistics(matrix.point).sample.slice(0, 0, rows);
  const Factors half = truncated(cut.factors, rank);
  const Tensor before = context.run_from(matrix.point, input);
  matrix.replace(std::make_shared<nn::DenseKind>(at::matmul(half.second, half.first)));
  const Tensor after = context.run_from(matrix.point, input);
  matrix.replace(std::make_shared<nn::DenseKind>(matrix.weight));
  return (after - before).square().sum(1).mean().item<double>() / own;
}

void run(chain::BlockContext& context, const Options& options) {
  std::vector<chain::Matrix> matrices = context.matrices();
  const double ratio = options.number("ratio");
  const bool search = options.boolean("search");
  std::vector<double> ratios = search ? ratio_grid() : std::vector{ratio};
  if (ratio < ratios.front()) ratios.insert(ratios.begin(), ratio);
  std::vector<Cut> cuts;
  std::vector<Candidate> candidates;
  double budget = 0;
  for (chain::Matrix& matrix : matrices) {
    require_dense(matrix);
    const chain::InputStatistics& statistics = matrix.statistics();
    Cut cut{asvd(matrix.weight, statistics.abs_mean, options.number("alpha")), {}, 1};
    Candidate candidate{matrix.weight.numel(), {}};
    if (search) {
      const Tensor energy = component_energy(cut.factors, statistics.hessian);
      cut.tail = at::cat({energy.flip(0).cumsum(0).flip(0), at::zeros({1}, at::kDouble)});
      cut.sensitivity = probe(context, matrix, cut, options.integer("rows"));
      for (const double share : ratios) {
        const int64_t rank = rank_for_ratio(matrix.out_features(), matrix.in_features(), share);
        candidate.error.push_back(cut.sensitivity * cut.tail[rank].item<double>());
      }
    }
    budget += ratio * static_cast<double>(candidate.parameters);
    cuts.push_back(std::move(cut));
    candidates.push_back(std::move(candidate));
  }
  const std::vector<size_t> chosen = search ? allocate(candidates, ratios, budget) : std::vector<size_t>(matrices.size(), 0);
  for (size_t i = 0; i < matrices.size(); ++i) {
    if (chosen[i] == ratios.size()) continue;  // stays dense
    const int64_t rank = rank_for_ratio(matrices[i].out_features(), matrices[i].in_features(), ratios[chosen[i]]);
    const Factors factors = truncated(cuts[i].factors, rank);
    matrices[i].store_low_rank(factors.first, factors.second);
  }
}

}  // namespace

Factors asvd(const Tensor& weight, const Tensor& abs_mean, double alpha) {
  const Tensor exact = weight.to(at::kDouble);
  Tensor scale = abs_mean.to(at::kDouble).pow(alpha);
  // A channel that was always zero would be divided by zero; it gets a scale far under the others.
  scale = scale.clamp_min(std::max(1e-4 * scale.max().item<double>(), 1e-12));
  return decompose(exact, exact * scale, [&](const Tensor& x) { return x / scale; });
}

Tensor component_energy(const Factors& factors, const Tensor& hessian) {
  const Tensor inputs = (at::matmul(factors.first, hessian.to(at::kDouble)) * factors.first).sum(1);
  return factors.second.square().sum(0) * inputs.clamp_min(0);
}

std::vector<size_t> allocate(const std::vector<Candidate>& candidates, const std::vector<double>& ratios, double budget) {
  const auto parameters = [&](size_t i, size_t choice) {
    return static_cast<double>(candidates[i].parameters) * (choice == ratios.size() ? 1.0 : ratios[choice]);
  };
  const auto error = [&](size_t i, size_t choice) { return choice == ratios.size() ? 0.0 : candidates[i].error[choice]; };
  std::vector<size_t> chosen(candidates.size(), 0);
  double used = 0;
  for (size_t i = 0; i < candidates.size(); ++i) used += parameters(i, 0);
  for (;;) {
    size_t best = candidates.size(), best_choice = 0;
    double best_gain = 0;
    for (size_t i = 0; i < candidates.size(); ++i) {
      for (size_t choice = chosen[i] + 1; choice <= ratios.size(); ++choice) {
        const double cost = parameters(i, choice) - parameters(i, chosen[i]);
        const double gain = (error(i, chosen[i]) - error(i, choice)) / cost;
        if (used + cost > budget + 1e-6 || gain <= best_gain) continue;
        best = i;
        best_choice = choice;
        best_gain = gain;
      }
    }
    if (best == candidates.size()) return chosen;
    used += parameters(best, best_choice) - parameters(best, chosen[best]);
    chosen[best] = best_choice;
  }
}

chain::StepRow asvd_row() {
  chain::StepRow row;
  row.id = "asvd";
  row.title = "ASVD";
  row.leaf = "lowrank";
  row.arxiv = "2312.05821";
  row.summary = "truncated SVD of columns scaled by their inputs' magnitude, ranks by sensitivity";
  row.options = {number_option("ratio", 0.8, 0.01, 1, "share of the parameters that is kept"),
                 number_option("alpha", 0.5, 0, 2, "power of the mean input magnitude that scales a column"),
                 boolean_option("search", true, "deal out the ranks of a block by sensitivity; false: one ratio for all"),
                 integer_option("rows", 256, 1, 1 << 20, "calibration tokens on which sensitivity is probed")};
  row.function = {.effect = chain::StepEffect::low_rank,
                  .needs = [](const Options& options) -> unsigned {
                    return chain::kNeedsMagnitude | (options.boolean("search") ? chain::kNeedsHessian | chain::kNeedsSample : 0u);
                  },
                  .run_block = run};
  row.claims = {
      {.statement = "a tenth of the parameters removed: perplexity under plain SVD", .model = "S", .baseline = {"svd:ratio=0.9"}, .method = {"asvd:ratio=0.9"}},
      {.statement = "a fifth of the parameters removed: perplexity under plain SVD",
       .model = "S",
       .baseline = {"svd:ratio=0.8"},
       .method = {"asvd:ratio=0.8"}}};
  return row;
}

}  // namespace frugal::lowrank
