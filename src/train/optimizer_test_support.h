// Optimizers over gradients of a problem of their own, and over the same gradients those of tests/oracle/run_optimizer.py.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/rng.h"
#include "oracle.h"
#include "train/optimizer.h"

namespace frugal::train {

using at::Tensor;

inline std::unique_ptr<Optimizer> make(const std::string& step, const std::vector<Parameter>& parameters) {
  const StepText text = parse_step(step);
  const MethodRow<OptimizerFactory>& row = optimizer_table().at(text.id);
  return row.function(parameters, Options(row.id, row.options, text.options));
}

// Tensors of random shapes, and a model of them whose loss has a gradient for all but now and then one of them:
// mean |(tanh(x first^T) * gain) second^T + bias - y|^2 / 2 plus a quadratic of `curved`.
class Problem {
 public:
  // `large`: a matrix beyond the size below which adam8bit keeps float.
  explicit Problem(uint64_t seed, bool large = false) : rng_(seed) {
    at::manual_seed(seed);
    const int64_t in = large ? 64 + rng_.between(3, 9) : rng_.between(3, 20), hidden = large ? 70 : rng_.between(3, 20), out = rng_.between(2, 9);
    add("model.layers.0.mlp.up_proj.weight", {hidden, in}, true, 1);
    add("model.layers.0.mlp.down_proj.weight", {out, hidden}, false, 1);
    add("model.norm.weight", {hidden}, false, 1);
    add("lm_head.weight", {out, out}, true, 0.5);
    add("model.bias", {out}, false, 2);
    add("model.embed_tokens.weight", {rng_.between(2, 7), rng_.between(20, 40)}, true, 1);
    scales_ = at::rand_like(tensor("model.embed_tokens.weight")) + 0.1;
    x_ = at::randn({16, in});
    y_ = at::randn({16, out});
  }

  const std::vector<Parameter>& parameters() const { return parameters_; }
  const Tensor& tensor(const std::string& name) const {
    for (const Parameter& parameter : parameters_) {
      if (parameter.name == name) return parameter.tensor;
    }
    fail(ErrorKind::internal, "no {}", name);
  }

  // Of fresh noise each time; now and then one tensor has none.
  void make_gradients() {
    for (const Parameter& parameter : parameters_) parameter.tensor.mutable_grad().reset();
    const Tensor noise = at::randn_like(x_) * 0.1;
    const Tensor hidden = at::tanh(at::matmul(x_ + noise, tensor("model.layers.0.mlp.up_proj.weight").t())) * tensor("model.norm.weight");
    const Tensor inner = at::matmul(hidden, tensor("model.layers.0.mlp.down_proj.weight").t()) + tensor("model.bias");
    const Tensor loss =
        (at::matmul(inner, tensor("lm_head.weight").t()) - y_).square().mean() / 2 + (scales_ * (tensor("model.embed_tokens.weight") - 1).square()).sum() / 2;
    loss.backward();
    if (rng_.below(4) == 0) parameters_[rng_.below(parameters_.size())].tensor.mutable_grad().reset();
  }

  std::vector<Tensor> values() const {
    std::vector<Tensor> values;
    for (const Parameter& parameter : parameters_) values.push_back(parameter.tensor.detach().clone());
    return values;
  }

 private:
  void add(const std::string& name, at::IntArrayRef shape, bool decays, double scale) {
    parameters_.push_back({name, at::randn(shape).requires_grad_(), scale, decays});
  }

  Rng rng_;
  std::vector<Parameter> parameters_;
  Tensor scales_, x_, y_;
};

inline constexpr int kSteps = 24;
inline constexpr double kBatchTokens = 48;
inline double rate_of(int step) { return 0.01 * (1 + std::sin(step)); }

inline void write_numbers(std::ofstream& file, const Tensor& tensor) {
  file.write(static_cast<const char*>(tensor.contiguous().const_data_ptr()), static_cast<std::streamsize>(tensor.nbytes()));
}

struct OracleCase {
  std::string step, oracle;
  double tolerance = 1e-6;
  int64_t flips = 0;  // numbers of a tensor that may differ: their sign or code hung on the rounding of a sum that cancels
};

// |ours - theirs| / |theirs|, without the `flips` largest differences.
inline double difference_without_flips(const Tensor& ours, const Tensor& theirs, int64_t flips) {
  const Tensor differences = std::get<0>((ours - theirs).abs().flatten().sort());
  const int64_t counted = std::max<int64_t>(1, differences.numel() - flips);
  return differences.slice(0, 0, counted).norm().item<double>() / theirs.norm().item<double>();
}

// Runs an optimizer here, and over the same gradients tests/oracle/run_optimizer.py with the oracle's (an optimizer of its own, and
// its arguments): the largest difference of a tensor after any step and at the point of evaluation.
inline double difference_to_oracle(const OracleCase& one, Problem& problem) {
  const testing::TemporaryFolder folder;
  nlohmann::json header;
  const std::unique_ptr<Optimizer> optimizer = make(one.step, problem.parameters());
  std::vector<std::vector<Tensor>> ours;
  {
    std::ofstream file(folder / "numbers", std::ios::binary);
    for (const Parameter& p : problem.parameters()) {
      header["tensors"].push_back({{"name", p.name}, {"shape", p.tensor.sizes().vec()}, {"scale", p.learning_rate_scale}, {"decays", p.decays}});
      write_numbers(file, p.tensor.detach());
    }
    const auto record_gradients = [&] {
      problem.make_gradients();
      nlohmann::json defined = nlohmann::json::array();
      for (const Parameter& p : problem.parameters()) {
        defined.push_back(p.tensor.grad().defined());
        if (p.tensor.grad().defined()) write_numbers(file, p.tensor.grad());
      }
      return defined;
    };
    for (int i = 0; i < kSteps; ++i) {
      header["rates"].push_back(rate_of(i));
      header["defined"].push_back(record_gradients());
      optimizer->step(rate_of(i));
      ours.push_back(problem.values());
      header["for_hessian"].push_back(optimizer->wants_hessian(i) ? record_gradients() : nlohmann::json());
      if (optimizer->wants_hessian(i)) optimizer->update_hessian(kBatchTokens);
    }
    optimizer->to_evaluation_point();
    ours.push_back(problem.values());
  }
  std::ofstream(folder / "header") << header;
  const std::string theirs = testing::run_oracle("run_optimizer.py", folder.path() + " " + one.oracle);
  double worst = 0;
  const char* at = theirs.data();
  for (const std::vector<Tensor>& values : ours) {
    for (const Tensor& value : values) {
      FRUGAL_ASSERT(at + value.nbytes() <= theirs.data() + theirs.size());
      const Tensor want = at::empty_like(value);
      std::memcpy(want.mutable_data_ptr(), at, value.nbytes());
      at += value.nbytes();
      worst = std::max(worst, difference_without_flips(value, want, one.flips));
    }
  }
  EXPECT_EQ(at, theirs.data() + theirs.size());
  return worst;
}

inline void expect_like_oracle(const std::vector<OracleCase>& cases, bool large = false) {
  uint64_t seed = testing::test_seed();
  for (const OracleCase& one : cases) {
    Problem problem(seed++, large);
    EXPECT_LT(difference_to_oracle(one, problem), one.tolerance) << one.step << ", seed " << seed - 1;
  }
}

}  // namespace frugal::train
