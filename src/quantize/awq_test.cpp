// The two searches against their definitions as scalar loops.
#include "quantize/awq.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "method_rows.h"

namespace frugal::quantize {
namespace {

using testing::correlated_inputs;
using testing::fresh_seed;

// A module of two Linears that read x: tanh(x W1^T) * (x W2^T), summed over features in scalar loops.
Tensor module_by_loops(const Tensor& x, const Tensor& w1, const Tensor& w2) {
  const auto xs = x.accessor<double, 2>();
  const auto a = w1.accessor<double, 2>(), b = w2.accessor<double, 2>();
  Tensor out = at::zeros({x.size(0), w1.size(0)}, at::kDouble);
  auto o = out.accessor<double, 2>();
  for (int64_t t = 0; t < x.size(0); ++t) {
    for (int64_t r = 0; r < w1.size(0); ++r) {
      double first = 0, second = 0;
      for (int64_t c = 0; c < x.size(1); ++c) {
        first += xs[t][c] * a[r][c];
        second += xs[t][c] * b[r][c];
      }
      o[t][r] = std::tanh(first) * second;
    }
  }
  return out;
}

// Q(w s) / s by scalar loops, asymmetric, groups of `group`.
Tensor scaled_and_rounded(const Tensor& weight, const std::vector<float>& s, int bits, int64_t group) {
  Tensor result = at::zeros(weight.sizes(), at::kDouble);
  const auto w = weight.accessor<float, 2>();
  auto out = result.accessor<double, 2>();
  const int top = (1 << bits) - 1;
  for (int64_t r = 0; r < weight.size(0); ++r) {
    for (int64_t begin = 0; begin < weight.size(1); begin += group) {
      const int64_t end = std::min(begin + group, weight.size(1));
      float low = 0, high = 0;
      for (int64_t c = begin; c < end; ++c) {
        low = std::min(low, w[r][c] * s[static_cast<size_t>(c)]);
        high = std::max(high, w[r][c] * s[static_cast<size_t>(c)]);
      }
      const float scale = static_cast<float>(static_cast<c10::Half>((high - low) / static_cast<float>(top)));
      const float zero = std::clamp(std::nearbyint(-low / scale), 0.0f, static_cast<float>(top));
      for (int64_t c = begin; c < end; ++c) {
        const float factor = s[static_cast<size_t>(c)];
        const float code = std::clamp(std::nearbyint(w[r][c] * factor / scale + zero), 0.0f, static_cast<float>(top));
        out[r][c] = static_cast<double>((code - zero) * scale / factor);
      }
    }
  }
  return result;
}

TEST(Awq, LossesOfTheGridEqualANaiveRecomputation) {
  Rng rng(fresh_seed());
  const int64_t in = rng.between(40, 80), out = rng.between(5, 12), group = rng.between(12, 40);
  const int grid = 10, bits = static_cast<int>(rng.between(2, 4));
  const Tensor x = correlated_inputs(30, in);
  const Tensor w1 = at::randn({out, in}) / 8, w2 = at::randn({out, in}) / 8;
  const Tensor abs_mean = x.abs().mean(0).to(at::kFloat);
  const auto output = [&](const std::vector<Tensor>& weights) {
    const Tensor x32 = x.to(at::kFloat);
    return at::tanh(at::matmul(x32, weights[0].t())) * at::matmul(x32, weights[1].t());
  };
  const AwqScale found = search_scale({{w1, {}}, {w2, {}}}, abs_mean, {.bits = bits, .group = group}, grid, output);

  const Tensor reference = module_by_loops(x, w1.to(at::kDouble), w2.to(at::kDouble));
  std::vector<double> losses;
  for (int step = 0; step < grid; ++step) {
    std::vector<float> s;
    for (int64_t c = 0; c < in; ++c) s.push_back(std::max(std::pow(abs_mean[c].item<float>(), static_cast<float>(step) / grid), 1e-4f));
    const auto [low, high] = std::minmax_element(s.begin(), s.end());
    const float norm = std::sqrt(*low * *high);
    for (float& value : s) value /= norm;
    const Tensor changed = module_by_loops(x, scaled_and_rounded(w1, s, bits, group), scaled_and_rounded(w2, s, bits, group));
    losses.push_back((changed - reference).square().mean().item<double>());
  }
  ASSERT_EQ(found.losses.size(), losses.size());
  // A value halfway between two codes may round the other way in one of the two: a single weight's share of the loss.
  for (size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(found.losses[i] / losses[i], 1, 0.03) << "alpha step " << i;
  const auto best = static_cast<size_t>(std::lround(found.alpha * grid));
  EXPECT_EQ(best, static_cast<size_t>(std::min_element(found.losses.begin(), found.losses.end()) - found.losses.begin()));
  EXPECT_LE(losses[best], 1.03 * *std::min_element(losses.begin(), losses.end()));
  EXPECT_NEAR((found.scale.max() * found.scale.min()).item<double>(), 1, 1e-4);
}

TEST(Awq, ClipsEachGroupToTheBestOfTenRanges) {
  Rng rng(fresh_seed());
  const int64_t in = rng.between(50, 90), group = rng.between(15, 30);
  const chain::GridSpec spec{.bits = 3, .group = group};
  const Tensor x = correlated_inputs(40, in).to(at::kFloat), weight = at::randn({4, in}).pow(3);
  const Tensor clipped = clip_ranges(weight, {}, x, spec);
  const Tensor rounded = chain::round_to_grid(clipped, {}, spec).decode();
  for (int64_t r = 0; r < 4; ++r) {
    for (int64_t begin = 0; begin < in; begin += group) {
      const int64_t end = std::min(begin + group, in);
      const Tensor part = weight.slice(0, r, r + 1).slice(1, begin, end), inputs = x.slice(1, begin, end);
      const auto error = [&](const Tensor& values) { return at::matmul(inputs, (values - part).t()).square().sum().item<double>(); };
      double least = INFINITY;
      for (int step = 0; step < 10; ++step) {
        const double bound = part.abs().max().item<double>() * (1 - step / 20.0);
        least = std::min(least, error(chain::round_to_grid(part.clamp(-bound, bound), {}, {.bits = 3, .group = 0}).decode()));
      }
      EXPECT_LE(error(rounded.slice(0, r, r + 1).slice(1, begin, end)), least * 1.01 + 1e-6);
    }
  }
}

}  // namespace
}  // namespace frugal::quantize
