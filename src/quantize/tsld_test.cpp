// Ternary weights against their definition, the token-scaled loss against autograd over whole logits, and what is stored against what was trained.
#include "quantize/tsld.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <torch/csrc/autograd/autograd.h>

#include "method_rows.h"
#include "nn/linear.h"
#include "quantize/quantize_table.h"
#include "train/full_parameters.h"
#include "train/logit_distillation.h"

namespace frugal::quantize {
namespace {

using at::Tensor;
using testing::fresh_seed;
using testing::RandomModel;
using testing::relative_error;

TEST(Tsld, WeightsAreThoseOfTernaryWeightNetworks) {
  Rng rng(fresh_seed());
  for (int trial = 0; trial < 6; ++trial) {
    const int64_t rows = rng.between(1, 9), columns = rng.between(2, 40), group = trial % 2 == 0 ? 0 : rng.between(1, 12);
    Tensor weight = at::randn({rows, columns});
    if (trial == 5) weight[0].zero_();
    const Tensor ternary = twn_weight(weight, group);
    const int64_t width = group == 0 ? columns : group;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t begin = 0; begin < columns; begin += width) {
        const int64_t end = std::min(columns, begin + width);
        double mean = 0, sum = 0, count = 0;
        for (int64_t i = begin; i < end; ++i) mean += std::abs(weight[row][i].item<double>()) / static_cast<double>(end - begin);
        for (int64_t i = begin; i < end; ++i) {
          const double magnitude = std::abs(weight[row][i].item<double>());
          if (magnitude <= 0.7 * mean) continue;
          sum += magnitude;
          ++count;
        }
        for (int64_t i = begin; i < end; ++i) {
          const double w = weight[row][i].item<double>();
          EXPECT_NEAR(ternary[row][i].item<double>(), std::abs(w) > 0.7 * mean ? std::copysign(sum / count, w) : 0, 1e-5);
        }
      }
    }
    auto packed = std::make_shared<formats::GroupedWeight>(twn_codes(weight, group));
    formats::validate(*packed, "w");
    EXPECT_TRUE(at::equal(nn::GroupedKind(packed).dense(), ternary)) << "what is stored, to the bit";
  }
}

TEST(Tsld, TheLossAndItsGradientAreThoseOfWholeLogits) {
  at::manual_seed(testing::test_seed());
  Rng rng(fresh_seed());
  for (const double temperature : {0.0, 1.0, 10.0}) {
    for (const double weight : {1.0, 0.4}) {
      nn::Model student = testing::tiny_model({.vocab = 37, .tied = false}), teacher = testing::tiny_model({.vocab = 37});
      data::Dataset data;
      for (int i = 0; i < 3; ++i) {
        const int64_t length = rng.between(3, 9);
        for (int64_t t = 0; t < length; ++t) {
          data.tokens.push_back(static_cast<int32_t>(rng.below(37)));
          data.trained.push_back(t > i);
        }
        data.offsets.push_back(data.tokens.size());
      }
      const auto parameters = train::all_parameters(student);
      train::LanguageModelingOptions options;
      options.batches = {.seed = 1, .micro_batch_size = 3, .sequence_len = 16, .sample_packing = false};
      train::LogitDistillation objective(student, teacher, data, std::move(options), weight, temperature);
      const auto batches = objective.epoch(0);
      ASSERT_EQ(batches.size(), 1u);
      const double loss = objective.accumulate(batches[0], 0.5, 3);
      const auto gradients = [&] {
        std::vector<Tensor> all;
        for (const train::Parameter& parameter : parameters) {
          all.push_back(parameter.tensor.grad().flatten().clone());
          parameter.tensor.mutable_grad() = Tensor();
        }
        return at::cat(all);
      };
      const Tensor ours = gradients();
      Tensor want = at::zeros({}, at::kDouble);
      for (const uint64_t id : batches[0].examples) {
        const data::Example example = data.example(id);
        const nn::Batch batch = nn::Batch::single(example.tokens.first(example.tokens.size() - 1), nullptr);
        std::vector<int64_t> rows, targets;
        for (size_t t = 1; t < example.tokens.size(); ++t) {
          if (!example.trained[t]) continue;
          rows.push_back(static_cast<int64_t>(t - 1));
          targets.push_back(example.tokens[t]);
        }
        if (rows.empty()) continue;
        const auto log_softmax_of = [&](const nn::Model& model) {
          return at::log_softmax(model.logits(train::hidden_states(model, batch)).index_select(0, at::tensor(rows, at::kLong)).to(at::kDouble), 1);
        };
        const Tensor column = at::tensor(targets, at::kLong).unsqueeze(1), q = log_softmax_of(student), p = log_softmax_of(teacher).detach();
        Tensor scale = at::ones({std::ssize(rows)}, at::kDouble);
        if (temperature > 0) scale = at::softmax(-p.gather(1, column).squeeze(1) / temperature, 0) * static_cast<double>(rows.size());
        want = want + weight * ((p.exp() * (p - q)).sum(1) * scale).sum() - (1 - weight) * q.gather(1, column).sum();
      }
      torch::autograd::backward({0.5 * want}, {});
      EXPECT_NEAR(loss, want.item<double>(), 1e-4 * std::abs(want.item<double>()));
      EXPECT_LT(relative_error(ours, gradients()), 1e-4);
    }
  }
}

TEST(Tsld, TrainingComesCloserToTheModelThanRoundingAndIsWhatIsStored) {
  const chain::StepTable table(quantize_rows());
  const auto after = [&](const std::string& step) {
    Rng rng(testing::test_seed());
    at::manual_seed(testing::test_seed());
    RandomModel model(rng);
    const Tensor before = model.logits();
    model.run(table, {step});
    const auto* grouped = dynamic_cast<const nn::GroupedKind*>(model.loaded.model->blocks[0].up.kinds().front().get());
    EXPECT_NE(grouped, nullptr);
    const Tensor dense = grouped->dense();
    EXPECT_LT(relative_error(dense, twn_weight(dense, step.find("group=8") == step.npos ? 0 : 8)), 1e-6) << "ternary stays ternary";
    const Tensor p = at::log_softmax(before, 1), q = at::log_softmax(model.logits(), 1);
    return (p.exp() * (p - q)).sum(1).mean().item<double>();
  };
  const std::string trained = "max_steps=60,learning_rate=5e-3,micro_batch_size=8", rounded = "max_steps=1,learning_rate=0";
  EXPECT_LT(after("tsld:" + trained), 0.7 * after("tsld:" + rounded));
  EXPECT_LT(after("tsld:group=8," + trained), 0.7 * after("tsld:group=8," + rounded));
}

TEST(Tsld, ATemperatureWithoutATeacherIsRefused) {
  const chain::StepTable table(quantize_rows());
  Rng rng(fresh_seed());
  RandomModel model(rng);
  try {
    model.run(table, {"tsld:temperature=2,distillation=0"});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::invalid_input);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("temperature"));
  }
}

}  // namespace
}  // namespace frugal::quantize
