// Against the textbook: the same definition in float64 with an explicit inverse Hessian, one column after another, every
// leave-one-out fit made in full.
#include "quantize/spqr.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>
#include <set>

#include "method_rows.h"
#include "quantize/gptq.h"
#include "quantize/quantize_table.h"

namespace frugal::quantize {
namespace {

using testing::correlated_inputs;
using testing::fresh_seed;
using testing::RandomModel;

constexpr double kDamping = 0.01;

double to_half(double value) { return static_cast<float>(c10::Half(static_cast<float>(value))); }

struct Levels {
  double scale = 1, zero = 0;
  bool empty = true;
};

Levels levels_of(const std::vector<double>& values, int top) {
  const double low = std::min(0.0, *std::min_element(values.begin(), values.end()));
  const double high = std::max(0.0, *std::max_element(values.begin(), values.end()));
  if (low == high) return {};
  return {(high - low) / top, -low * top / (high - low), false};
}

// As GPTQ's grids: float32, the scale in float16 before the zero point is made.
Levels integer_levels_of(const std::vector<double>& values, int top) {
  const auto [least, largest] = std::minmax_element(values.begin(), values.end());
  const float low = std::min(0.0f, static_cast<float>(*least)), high = std::max(0.0f, static_cast<float>(*largest));
  if (low == high) return {};
  const double scale = to_half((high - low) / static_cast<float>(top));
  return {scale, std::clamp(std::nearbyint(-low / scale), 0.0, static_cast<double>(top)), false};
}

double rounded(double value, const Levels& levels, int top) {
  return (std::clamp(std::nearbyint(value / levels.scale + levels.zero), 0.0, static_cast<double>(top)) - levels.zero) * levels.scale;
}

double error_of(const std::vector<double>& values, const std::vector<double>& costs, int top) {
  if (values.empty()) return 0;
  const Levels levels = levels_of(values, top);
  double sum = 0;
  for (size_t i = 0; i < values.size() && !levels.empty; ++i) sum += std::pow(values[i] - rounded(values[i], levels, top), 2) * costs[i];
  return sum;
}

template <typename T>
std::vector<T> without(std::vector<T> values, size_t i) {
  values.erase(values.begin() + static_cast<int64_t>(i));
  return values;
}

void second_grid(std::vector<Levels>& rows, double Levels::*statistic, int bits) {
  std::vector<double> seen;
  for (const Levels& levels : rows) {
    if (!levels.empty) seen.push_back(levels.*statistic);
  }
  if (seen.empty()) return;
  const double low = *std::min_element(seen.begin(), seen.end()), high = *std::max_element(seen.begin(), seen.end());
  const double step = (high - low) / ((1 << bits) - 1);
  for (Levels& levels : rows) {
    if (!levels.empty && step > 0) levels.*statistic = low + step * std::nearbyint((levels.*statistic - low) / step);
  }
}

struct Textbook {
  Tensor result, chosen;
};

class Definition {
 public:
  Definition(const Tensor& weight, const Tensor& hessian, const Tensor& kept, const SpqrOptions& options)
      : options_(options), w_(weight.clone()), kept_(kept.defined() ? kept : at::ones_like(weight, at::kBool)), top_((1 << options.bits) - 1) {
    Tensor h = hessian.clone();
    const Tensor alive = h.diagonal() > 0, mean = h.diagonal().masked_select(alive).mean();
    h.diagonal().copy_(at::where(alive, h.diagonal(), mean) + kDamping * mean);
    for (int64_t j = 0; j < weight.size(1); ++j) {
      const Tensor inverse = at::inverse(h.slice(0, j).slice(1, j));  // of the columns not yet settled
      costs_.push_back(1 / inverse[0][0].item<double>());
      later_.push_back(inverse[0].slice(0, 1) / inverse[0][0]);
    }
    const Tensor costs = at::tensor(costs_, at::kDouble);
    tau_ = options.threshold * (weight.square() * costs * kept_).sum().item<double>() / kept_.sum().item<double>();
  }

  Textbook run() {
    Textbook book{at::zeros_like(w_), at::zeros_like(w_, at::kBool)};
    std::vector<Levels> levels;
    for (int64_t j = 0; j < w_.size(1); ++j) {
      if (j % options_.group == 0) levels = group_levels(j);
      for (int64_t r = 0; r < w_.size(0); ++r) {
        const double target = w_[r][j].item<double>();
        const Levels& mine = levels[static_cast<size_t>(r)];
        double value = 0;
        if (kept_[r][j].item<bool>()) {
          value = rounded(target, mine, top_);
          if (std::pow(target - value, 2) * costs_[static_cast<size_t>(j)] > tau_) {
            value = rounded(0, mine, top_);
            value += to_half(target - value);
            book.chosen[r][j] = true;
          }
        }
        book.result[r][j] = value;
        w_[r].slice(0, j + 1).sub_(later_[static_cast<size_t>(j)] * (target - value));
      }
    }
    return book;
  }

 private:
  std::vector<Levels> group_levels(int64_t begin) const {
    std::vector<Levels> all;
    for (int64_t r = 0; r < w_.size(0); ++r) all.push_back(row_levels(r, begin, std::min(begin + options_.group, w_.size(1))));
    for (size_t top = 0; top < all.size() && options_.statistics_bits > 0; top += static_cast<size_t>(options_.statistics_group)) {
      const size_t bottom = std::min(top + static_cast<size_t>(options_.statistics_group), all.size());
      std::vector<Levels> part(all.begin() + static_cast<int64_t>(top), all.begin() + static_cast<int64_t>(bottom));
      second_grid(part, &Levels::scale, options_.statistics_bits);
      if (!options_.integer_zeros) second_grid(part, &Levels::zero, options_.statistics_bits);
      std::copy(part.begin(), part.end(), all.begin() + static_cast<int64_t>(top));
    }
    for (Levels& levels : all) levels = {to_half(levels.scale), to_half(levels.zero), levels.empty};
    return all;
  }

  Levels row_levels(int64_t row, int64_t begin, int64_t end) const {
    std::vector<double> values, costs, rest;
    for (int64_t c = begin; c < end; ++c) {
      if (!kept_[row][c].item<bool>()) continue;
      values.push_back(w_[row][c].item<double>());
      costs.push_back(costs_[static_cast<size_t>(c)]);
    }
    if (values.empty()) return {};
    const double all = error_of(values, costs, top_);
    for (size_t i = 0; i < values.size(); ++i) {
      if (!(all - error_of(without(values, i), without(costs, i), top_) > tau_)) rest.push_back(values[i]);
    }
    if (rest.empty()) rest = values;
    return options_.integer_zeros ? integer_levels_of(rest, top_) : levels_of(rest, top_);
  }

  const SpqrOptions& options_;
  Tensor w_, kept_;
  int top_;
  std::vector<double> costs_;  // 1 / [H^-1]_jj of the columns from j on
  std::vector<Tensor> later_;  // what an error of 1 in column j does to the columns after it
  double tau_;
};

Tensor decoded(const SpqrResult& result, const Tensor& kept) {
  Tensor codes = result.codes.decode();
  if (kept.defined()) codes = codes * kept;
  return (codes + result.outliers).to(at::kDouble);
}

double layer_loss(const Tensor& weight, const Tensor& result, const Tensor& hessian) {
  const Tensor error = weight - result;
  return (at::matmul(error, hessian) * error).sum().item<double>();
}

// Weights with heavy tails, so that there are outliers.
Tensor heavy_weight(int64_t rows, int64_t columns) {
  const Tensor values = at::randn({rows, columns}, at::kDouble);
  return values + 0.3 * values.pow(3);
}

TEST(Spqr, EqualsTheTextbookForEveryGridThresholdAndMask) {
  Rng rng(fresh_seed());
  for (const bool integer_zeros : {false, true}) {
    for (const bool masked : {false, true}) {
      for (const double threshold : {0.02, 0.2, std::numeric_limits<double>::infinity()}) {
        SpqrOptions options{.bits = static_cast<int>(rng.between(2, 4)), .group = rng.between(3, 20), .threshold = threshold};
        options.statistics_bits = static_cast<int>(rng.between(0, 1) * rng.between(2, 4));
        options.statistics_group = rng.between(2, 16);
        options.integer_zeros = integer_zeros;
        const int64_t rows = rng.between(1, 20), columns = rng.between(25, 60);
        SCOPED_TRACE(fmt::format("[{}, {}] bits {} group {} threshold {} statistics {}/{} integer zeros {} masked {}", rows, columns, options.bits,
                                 options.group, threshold, options.statistics_bits, options.statistics_group, integer_zeros, masked));
        const Tensor x = correlated_inputs(200, columns, /*dead=*/true), hessian = at::matmul(x.t(), x) / 200;
        const Tensor kept = masked ? at::rand({rows, columns}) > 0.5 : Tensor();
        Tensor weight = heavy_weight(rows, columns);
        if (masked) weight = weight * kept;
        const Textbook want = Definition(weight, hessian, kept, options).run();
        const SpqrResult got = spqr(weight, kept, chain::error_feedback(hessian, kDamping, at::kDouble), options);
        EXPECT_TRUE(at::equal(got.chosen, want.chosen));
        EXPECT_LT((decoded(got, kept) - want.result).abs().max().item<double>(), 1e-5);

        // float32, as steps run it: a tie may fall to the other side, and with it the rest of its row.
        const SpqrResult single = spqr(weight.to(at::kFloat), kept, chain::error_feedback(hessian, kDamping, at::kFloat), options);
        EXPECT_LT(layer_loss(weight, decoded(single, kept), hessian), 1.2 * layer_loss(weight, want.result, hessian));
      }
    }
  }
}

TEST(Spqr, WithoutOutliersAndSecondGridsIsGptq) {
  Rng rng(fresh_seed());
  for (const bool masked : {false, true}) {
    const int64_t rows = rng.between(3, 20), columns = rng.between(130, 200), group = rng.between(4, 40);
    const Tensor x = correlated_inputs(400, columns), hessian = at::matmul(x.t(), x) / 400, weight = heavy_weight(rows, columns);
    const Tensor kept = masked ? at::rand({rows, columns}) > 0.5 : at::ones({rows, columns}, at::kBool);
    GptqOptions plain;
    plain.grid = {.bits = 3, .group = group};
    const Tensor want = gptq(weight * kept, kept, gptq_inputs(hessian, plain, at::kDouble), plain).decode() * kept;
    const SpqrResult got =
        spqr(weight * kept, kept, chain::error_feedback(hessian, plain.damping, at::kDouble), {.group = group, .statistics_bits = 0, .integer_zeros = true});
    EXPECT_TRUE(at::equal(got.codes.decode() * kept, want)) << "group " << group;
    EXPECT_FALSE(got.chosen.any().item<bool>());
  }
}

TEST(Spqr, MoreOutliersLowerTheErrorOfTheLayer) {
  fresh_seed();
  const Tensor x = correlated_inputs(1000, 150), hessian = at::matmul(x.t(), x) / 1000, weight = heavy_weight(60, 150);
  const chain::ErrorFeedback feedback = chain::error_feedback(hessian, kDamping, at::kDouble);
  double loss = std::numeric_limits<double>::infinity();
  int64_t outliers = -1;
  for (const double threshold : {std::numeric_limits<double>::infinity(), 0.3, 0.05, 0.01, 0.0}) {
    const SpqrResult result = spqr(weight, {}, feedback, {.threshold = threshold});
    const double now = layer_loss(weight, decoded(result, {}), hessian);
    const int64_t count = result.chosen.sum().item<int64_t>();
    EXPECT_LT(now, loss) << threshold;
    EXPECT_GT(count, outliers) << threshold;
    loss = now;
    outliers = count;
  }
  EXPECT_LT(loss, 1e-5 * (at::matmul(weight, hessian) * weight).sum().item<double>());  // everything is an outlier
}

TEST(Spqr, SixteenRowsHaveEightScalesAndZeroPoints) {
  fresh_seed();
  const Tensor x = correlated_inputs(300, 50), hessian = at::matmul(x.t(), x) / 300;
  Tensor weight = heavy_weight(37, 50);
  weight[5].zero_();
  const SpqrResult result = spqr(weight, {}, chain::error_feedback(hessian, kDamping, at::kDouble), {.threshold = 0.2});
  for (int64_t top = 0; top < 37; top += 16) {
    for (int64_t group = 0; group < 4; ++group) {
      std::set<float> scales, zeros;
      for (int64_t row = top; row < std::min<int64_t>(top + 16, 37); ++row) {
        if (row == 5) continue;
        scales.insert(result.codes.grid(row, group).scale);
        zeros.insert(result.codes.grid(row, group).zero);
      }
      EXPECT_LE(std::max(scales.size(), zeros.size()), 8u);
    }
  }
  EXPECT_FALSE(decoded(result, {})[5].any().item<bool>());
}

TEST(Spqr, IsStoredAsCodesPlusSparseOutliersAndAFactorAsCodesAlone) {
  Rng rng(fresh_seed());
  chain::StepTable table(quantize_rows());
  chain::StepRow factor;
  factor.id = "factor";
  factor.function = {.effect = chain::StepEffect::low_rank, .run_block = testing::factor};
  table.append({factor});
  RandomModel plain(rng), factored(rng);
  plain.run(table, {"spqr:threshold=0.01"});
  for (const nn::Linear* linear : plain.loaded.model->blocks[0].linears()) {
    ASSERT_EQ(linear->kinds().size(), 2u) << linear->describe();
    EXPECT_TRUE(dynamic_cast<const nn::GroupedKind*>(linear->kinds()[0].get()));
    EXPECT_TRUE(dynamic_cast<const nn::SparseKind*>(linear->kinds()[1].get()));
  }
  factored.run(table, {"factor", "spqr:threshold=0.01"});
  for (const nn::Linear* linear : factored.loaded.model->blocks[0].linears()) EXPECT_EQ(linear->kinds().size(), 1u) << linear->describe();
}

TEST(Spqr, RefusesNumbersThatAreNotFinite) {
  const chain::ErrorFeedback feedback = chain::error_feedback(at::zeros({4, 4}), kDamping, at::kFloat);  // every input dead
  EXPECT_THROW(spqr(at::full({2, 4}, INFINITY), {}, feedback, {}), Error);
  const Tensor zeros = at::zeros({2, 4});
  EXPECT_TRUE(at::equal(decoded(spqr(zeros, {}, feedback, {.threshold = 0.2}), {}), zeros.to(at::kDouble)));
}

}  // namespace
}  // namespace frugal::quantize
