// Against the textbook: optimal brain quantization in float64 with an explicit inverse Hessian, one column after another, no
// Cholesky factor and no blocks.
#include "quantize/gptq.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "method_rows.h"

namespace frugal::quantize {
namespace {

using testing::correlated_inputs;
using testing::fresh_seed;

struct Levels {
  Tensor scale, zero;  // [rows, 1] float64
};

// values [rows, group] float64; dropped ones are 0.
Levels levels_of(const Tensor& values, const chain::GridSpec& spec) {
  const Tensor single = values.to(at::kFloat);
  const Tensor low = single.amin(1, true).clamp_max(0), high = single.amax(1, true).clamp_min(0);
  const Tensor span = spec.symmetric ? 2 * at::maximum(high, -low) : high - low;
  Tensor scale = (span / spec.max_code()).to(at::kHalf).to(at::kFloat);
  scale = at::where(scale > 0, scale, at::ones_like(scale));  // every entry dropped
  const Tensor zero = spec.symmetric ? at::full_like(scale, 1 << (spec.bits - 1)) : at::round(-low / scale).clamp(0, spec.max_code());
  return {scale.to(at::kDouble), zero.to(at::kDouble)};
}

Tensor rounded(const Tensor& column, const Levels& levels, const chain::GridSpec& spec) {
  const Tensor code = at::round(column / levels.scale + levels.zero).clamp(0, spec.max_code());
  return (code - levels.zero) * levels.scale;
}

Tensor textbook(const Tensor& weight, const Tensor& hessian, const Tensor& kept, const GptqOptions& options) {
  const int64_t columns = weight.size(1), width = options.grid.width(columns);
  Tensor h = hessian.clone();
  const Tensor alive = h.diagonal() > 0;
  const Tensor mean = h.diagonal().masked_select(alive).mean();
  h.diagonal().copy_(at::where(alive, h.diagonal(), mean) + options.damping * mean);
  Tensor order = at::arange(columns);
  if (options.activation_order) order = hessian.diagonal().argsort(/*stable=*/true, 0, /*descending=*/true);
  h = h.index_select(0, order).index_select(1, order);
  Tensor inverse = at::inverse(h);
  Tensor w = weight.index_select(1, order).clone(), result = at::zeros_like(weight);
  const bool fixed = options.activation_order || options.grid.group == 0;
  std::vector<Levels> levels(static_cast<size_t>(options.grid.groups(columns)));
  const auto group_values = [&](const Tensor& from, int64_t group) {
    Tensor values = from.slice(1, group * width, std::min((group + 1) * width, columns));
    if (kept.defined()) values = values * kept.slice(1, group * width, std::min((group + 1) * width, columns));
    return values;
  };
  for (size_t g = 0; g < levels.size() && fixed; ++g) levels[g] = levels_of(group_values(weight, static_cast<int64_t>(g)), options.grid);
  for (int64_t j = 0; j < columns; ++j) {
    const int64_t column = order[j].item<int64_t>();
    const auto group = static_cast<size_t>(column / width);
    if (!fixed && column % width == 0) levels[group] = levels_of(group_values(w, column / width), options.grid);
    const Tensor target = w.slice(1, j, j + 1);
    Tensor value = rounded(target, levels[group], options.grid);
    if (kept.defined()) value = value * kept.slice(1, column, column + 1);
    result.slice(1, column, column + 1).copy_(value);
    const Tensor error = (target - value) / inverse[0][0];
    if (j + 1 < columns) {
      const Tensor later = inverse.slice(1, 1)[0].clone();  // [columns - j - 1]
      w.slice(1, j + 1).sub_(error * later);
      inverse = inverse.slice(0, 1).slice(1, 1) - at::outer(later, later) / inverse[0][0];
    }
  }
  return result;
}

double layer_loss(const Tensor& weight, const Tensor& result, const Tensor& hessian) {
  const Tensor error = weight - result.to(at::kDouble);
  return (at::matmul(error, hessian) * error).sum().item<double>();
}

TEST(Gptq, EqualsTheTextbookForEveryGroupOrderAndMask) {
  Rng rng(fresh_seed());
  for (const bool activation_order : {false, true}) {
    for (const bool symmetric : {false, true}) {
      for (const bool masked : {false, true}) {
        GptqOptions options;
        options.grid = {.bits = static_cast<int>(rng.between(2, 5)), .group = rng.between(0, 3) * rng.between(5, 60), .symmetric = symmetric};
        options.activation_order = activation_order;
        const int64_t rows = rng.between(3, 20), columns = rng.between(130, 200);
        SCOPED_TRACE(
            fmt::format("[{}, {}] bits {} group {} order {} masked {}", rows, columns, options.grid.bits, options.grid.group, activation_order, masked));
        const Tensor x = correlated_inputs(400, columns, /*dead=*/true);
        const Tensor hessian = at::matmul(x.t(), x) / 400;
        const Tensor kept = masked ? at::rand({rows, columns}) > 0.5 : Tensor();
        Tensor weight = at::randn({rows, columns}).to(at::kDouble);
        if (masked) weight = weight * kept;
        const Tensor want = textbook(weight, hessian, kept, options);
        Tensor got = gptq(weight, kept, gptq_inputs(hessian, options, at::kDouble), options).decode().to(at::kDouble);
        if (masked) got = got * kept;
        EXPECT_LT((got - want).abs().max().item<double>(), 1e-5);

        // float32, as steps run it: a target halfway between two codes may fall to the other side, and with it the rest of its
        // row takes another, equally good way.
        Tensor single = gptq(weight.to(at::kFloat), kept, gptq_inputs(hessian, options, at::kFloat), options).decode();
        if (masked) single = single * kept;
        const double loss = layer_loss(weight, want, hessian);
        EXPECT_LT(layer_loss(weight, single, hessian), 1.2 * loss);
      }
    }
  }
}

TEST(Gptq, ChangesTheOutputLessThanRoundingToNearest) {
  fresh_seed();
  GptqOptions options;
  options.grid = {.bits = 3, .group = 64};
  // Over eight draws: a single one may go the other way (the errors that are passed on round differently).
  double nearest_loss = 0, losses[2] = {0, 0};
  for (int draw = 0; draw < 8; ++draw) {
    const Tensor x = correlated_inputs(1000, 150);
    const Tensor hessian = at::matmul(x.t(), x) / 1000, weight = at::randn({50, 150}, at::kDouble);
    nearest_loss += layer_loss(weight, chain::round_to_grid(weight.to(at::kFloat), {}, options.grid).decode(), hessian);
    for (const bool activation_order : {false, true}) {
      options.activation_order = activation_order;
      losses[activation_order] += layer_loss(weight, gptq(weight, {}, gptq_inputs(hessian, options, at::kDouble), options).decode(), hessian);
    }
  }
  EXPECT_LT(losses[0], 0.9 * nearest_loss);
  EXPECT_LT(losses[1], 0.9 * nearest_loss);
}

TEST(Gptq, RefusesNumbersThatAreNotFinite) {
  GptqOptions options;
  EXPECT_THROW(gptq_inputs(at::full({4, 4}, NAN), options, at::kFloat), Error);
  const GptqInputs inputs = gptq_inputs(at::zeros({4, 4}), options, at::kFloat);  // every input dead: plain rounding
  EXPECT_THROW(gptq(at::full({2, 4}, INFINITY), {}, inputs, options), Error);
  const Tensor weight = at::randn({3, 4});
  EXPECT_TRUE(at::equal(gptq(weight, {}, inputs, options).decode(), chain::round_to_grid(weight, {}, options.grid).decode()));
}

}  // namespace
}  // namespace frugal::quantize
