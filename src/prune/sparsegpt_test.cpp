// Against the textbook: optimal brain surgeon in float64 with explicit inverses, column after column, no Cholesky factor.
#include "prune/sparsegpt.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "method_rows.h"

namespace frugal::prune {
namespace {

using testing::correlated_inputs;
using testing::fresh_seed;

struct Textbook {
  Tensor values, kept;
};

// Lowest `drop` of scores (1-d): true.
Tensor lowest(const Tensor& scores, int64_t drop) {
  Tensor dropped = at::zeros(scores.sizes(), at::kBool);
  if (drop > 0) dropped.index_fill_(0, scores.argsort(/*stable=*/true, 0, /*descending=*/false).slice(0, 0, drop), true);
  return dropped;
}

Textbook textbook(const Tensor& weight, const Tensor& hessian, const Tensor& earlier, double damping, const SparseGptOptions& options, int64_t block) {
  const int64_t rows = weight.size(0), columns = weight.size(1);
  const Pattern& pattern = options.pattern;
  Tensor h = hessian.clone();
  const Tensor alive = h.diagonal() > 0;
  const Tensor mean = h.diagonal().masked_select(alive).mean();
  h.diagonal().copy_(at::where(alive, h.diagonal(), mean) + damping * mean);
  // Of each column: the first row of the inverse of H over it and the columns after it.
  std::vector<Tensor> inverse_rows;
  for (int64_t j = 0; j < columns; ++j) inverse_rows.push_back(at::inverse(h.slice(0, j).slice(1, j))[0]);
  Tensor w = weight.clone(), kept = earlier.defined() ? earlier.clone() : at::ones({rows, columns}, at::kBool);
  const auto score = [&](int64_t j) {
    Tensor s = w.select(1, j).square() / inverse_rows[static_cast<size_t>(j)][0];
    if (!alive[j].item<bool>()) s = s * 0;
    return earlier.defined() ? at::where(earlier.select(1, j), s, at::full_like(s, -1)) : s;
  };
  const int64_t width = options.grid ? options.grid->width(columns) : 1;
  Tensor scale, zero;
  const auto fit = [&](const Tensor& from, int64_t j) {
    Tensor values = from.slice(1, j, std::min(j + width, columns));
    if (options.grid->group > 0) values = values * kept.slice(1, j, std::min(j + width, columns));
    const Tensor single = values.to(at::kFloat), low = single.amin(1).clamp_max(0), high = single.amax(1).clamp_min(0);
    const Tensor step = ((high - low) / options.grid->max_code()).to(at::kHalf).to(at::kFloat);
    scale = at::where(step > 0, step, at::ones_like(step)).to(at::kDouble);
    zero = at::round(-low / scale.to(at::kFloat)).clamp(0, options.grid->max_code()).to(at::kDouble);
  };
  for (int64_t j = 0; j < columns; ++j) {
    if (pattern.m == 0 && j % block == 0) {
      std::vector<Tensor> scores;
      for (int64_t c = j; c < std::min(j + block, columns); ++c) scores.push_back(score(c));
      const Tensor all = at::stack(scores, 1);
      const Tensor dropped = lowest(all.reshape({-1}), static_cast<int64_t>(std::floor(pattern.sparsity * static_cast<double>(all.numel()) + 1e-9)));
      kept.slice(1, j, std::min(j + block, columns)).logical_and_(dropped.view(all.sizes()).logical_not());
    }
    if (options.grid && (j % width == 0)) fit(options.grid->group == 0 ? weight : w, j);
    if (pattern.m > 0 && j % pattern.m == 0) {
      std::vector<Tensor> scores;
      for (int64_t c = j; c < std::min<int64_t>(j + pattern.m, columns); ++c) scores.push_back(score(c));
      const Tensor all = at::stack(scores, 1);
      for (int64_t r = 0; r < rows; ++r) {
        kept.slice(0, r, r + 1).slice(1, j, j + all.size(1)).logical_and_(lowest(all[r], all.size(1) - pattern.n).logical_not());
      }
    }
    const Tensor target = w.select(1, j).clone();
    Tensor value = target;
    if (options.grid) value = (at::round(target / scale + zero).clamp(0, options.grid->max_code()) - zero) * scale;
    value = value * kept.select(1, j);
    const Tensor& inverse = inverse_rows[static_cast<size_t>(j)];
    w.slice(1, j).sub_(at::outer((target - value) / inverse[0], inverse));
    w.select(1, j).copy_(value);
  }
  return {w, kept};
}

TEST(SparseGpt, EqualsTheTextbookForEveryPatternMaskAndGrid) {
  Rng rng(fresh_seed());
  for (const Pattern pattern : {Pattern{.sparsity = 0.5}, Pattern{.sparsity = 0.37}, Pattern{.n = 2, .m = 4}, Pattern{.n = 4, .m = 8}}) {
    for (const bool masked : {false, true}) {
      for (const int64_t group : {int64_t{-1}, int64_t{0}, int64_t{16}}) {
        const int64_t rows = rng.between(3, 12), columns = rng.between(70, 110);
        SCOPED_TRACE(fmt::format("[{}, {}] sparsity {} {}:{} masked {} group {}", rows, columns, pattern.sparsity, pattern.n, pattern.m, masked, group));
        SparseGptOptions options{.pattern = pattern, .block = 32, .grid = std::nullopt};
        if (group >= 0) options.grid = chain::GridSpec{.bits = 4, .group = group};
        const Tensor x = correlated_inputs(300, columns, /*dead=*/true);
        const Tensor hessian = at::matmul(x.t(), x) / 300;
        const Tensor earlier = masked ? at::rand({rows, columns}) > 0.3 : Tensor();
        Tensor weight = at::randn({rows, columns}).to(at::kDouble);
        if (masked) weight = weight * earlier;
        const Textbook want = textbook(weight, hessian, earlier, 0.01, options, 32);
        const SparseGptResult got = sparsegpt(weight, earlier, chain::error_feedback(hessian, 0.01, at::kDouble), hessian.diagonal() <= 0, options);
        EXPECT_TRUE(at::equal(got.kept, want.kept));
        EXPECT_LT((got.values - want.values).abs().max().item<double>(), 1e-5);
        if (got.codes) {
          EXPECT_LT(((got.codes->decode() - got.values) * got.kept).abs().max().item<double>(), 1e-5);
        }
      }
    }
  }
}

TEST(SparseGpt, ChangesTheOutputLessThanDroppingTheSmallestWeights) {
  fresh_seed();
  const Tensor x = correlated_inputs(1000, 150), hessian = at::matmul(x.t(), x) / 1000;
  const Tensor weight = at::randn({40, 150});
  const auto loss = [&](const Tensor& values) {
    const Tensor error = (weight - values).to(at::kDouble);
    return (at::matmul(error, hessian) * error).sum().item<double>();
  };
  const Tensor dropped = weight * keep_highest(weight.abs(), {}, {.sparsity = 0.5}, Compared::matrix);
  const SparseGptOptions options{.pattern = {.sparsity = 0.5}, .block = 128, .grid = std::nullopt};
  const SparseGptResult result = sparsegpt(weight, {}, chain::error_feedback(hessian, 0.01, at::kFloat), at::zeros({150}, at::kBool), options);
  EXPECT_LT(loss(result.values), 0.5 * loss(dropped));
}

}  // namespace
}  // namespace frugal::prune
