// Gradients and losses of whole runs against transformers, and what recomputation and the fused loss may not change.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "base/rng.h"
#include "models/test_tools.h"
#include "ops/autocast.h"
#include "oracle.h"
#include "tiny_model.h"
#include "train/clip.h"
#include "train/cross_entropy.h"
#include "train/flops.h"
#include "train/full_parameters.h"
#include "train/grad_scaler.h"
#include "train/language_modeling.h"
#include "train/optimizer.h"
#include "train/preference.h"
#include "train/schedule.h"
#include "train/test_tools.h"

namespace frugal::train {
namespace {

using at::Tensor;
using testing::relative_error;

std::vector<uint64_t> all_of(const data::Dataset& dataset) {
  std::vector<uint64_t> ids(dataset.size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = i;
  return ids;
}

TEST(Training, LossesNormsAndGradientsEqualTransformersByName) {
  Rng rng(testing::test_seed());
  const RunShape run;
  const models::Loader loader;
  const io::TemporaryFolder folder;
  struct Case {
    std::string name;
    data::Dataset dataset;
  };
  std::vector<Case> cases;
  std::string arguments;
  for (const std::string& name : models::TinyModels::get().names()) {
    if (name == "llama_bf16") continue;  // transformers would train what it rounds, we the float copy: equal, but not to the bit of the start
    const std::string path = models::TinyModels::get().path(name);
    cases.push_back({name, random_dataset(rng, loader.load(path).model->spec.vocab, 8, 24)});
    write_data(folder / (name + ".data"), cases.back().dataset, run);
    arguments += fmt::format("{} {} {} ", path, folder / (name + ".data"), folder / (name + ".out"));
  }
  io::run_oracle("run_training.py", arguments);
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const auto want = models::read_tensors(folder / (c.name + ".out"));
    const nn::LoadedModel loaded = loader.load(models::TinyModels::get().path(c.name));
    expect_same_run(*loaded.model, all_parameters(*loaded.model), c.dataset, want, run);
  }
}

// Of one run: losses, and the gradients of the first step.
struct Learned {
  std::vector<double> losses;
  std::map<std::string, Tensor> gradients;
};

Learned learn(const std::string& path, const data::Dataset& dataset, const RunShape& run) {
  const models::Loader loader;
  const nn::LoadedModel loaded = loader.load(path);
  const std::vector<Parameter> parameters = all_parameters(*loaded.model);
  const auto& row = optimizer_table().at("adamw");
  const auto optimizer = row.function(parameters, Options(row.id, row.options, {{"weight_decay", fmt::format("{}", run.decay)}}));
  const Options schedule("schedule", schedule_options(), {});
  LanguageModeling objective(*loaded.model, dataset, nullptr, {.activations = run.activations});
  GradScaler scaler;
  Learned learned;
  for (int step = 0; step < run.steps; ++step) {
    clear(parameters);
    MicroBatch batch;
    for (int i = 0; i < run.size; ++i) {
      batch.examples.push_back(static_cast<uint64_t>(step * run.size + i) % dataset.size());
      const auto trained = dataset.example(batch.examples.back()).trained;
      batch.targets += std::count(trained.begin(), trained.end(), 1);
    }
    const auto targets = static_cast<double>(batch.targets);
    learned.losses.push_back(objective.accumulate(batch, scaler.scale() / targets, 0) / targets);
    EXPECT_TRUE(scaler.unscale(parameters));
    if (step == 0) {
      for (const Parameter& parameter : parameters) learned.gradients[parameter.name] = parameter.tensor.grad().clone();
    }
    clip_gradients(parameters, run.clip);
    const at::NoGradGuard no_grad;
    optimizer->step(run.rate * schedule_factor(schedule, step, run.steps));
  }
  return learned;
}

// Activations of 16 bits: losses of 20 steps as torch.autocast's, and gradients as near to float32's as its are, parameter by parameter.
TEST(Training, SixteenBitActivationsLearnAsUnderTorchsAutocast) {
  Rng rng(testing::test_seed());
  const models::Loader loader;
  const io::TemporaryFolder folder;
  const std::vector<std::string> names = {"llama", "gemma3"};
  std::map<std::string, data::Dataset> data;
  std::string arguments;
  for (const std::string& name : names) {
    const std::string path = models::TinyModels::get().path(name);
    data[name] = random_dataset(rng, loader.load(path).model->spec.vocab, 8, 60);
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const std::string run = folder / fmt::format("{}.{}", name, at::toString(type));
      write_data(run + ".data", data[name], {.activations = type});
      arguments += fmt::format("{0} {1}.data {1}.out ", path, run);
    }
  }
  io::run_oracle("run_training.py", arguments);
  for (const std::string& name : names) {
    const auto exact = models::read_tensors(folder / fmt::format("{}.Float.out", name));
    for (const auto& [type, tolerance] : {std::pair{at::kBFloat16, 4e-3}, std::pair{at::kHalf, 1e-3}}) {
      SCOPED_TRACE(fmt::format("{} {}", name, at::toString(type)));
      const auto want = models::read_tensors(folder / fmt::format("{}.{}.out", name, at::toString(type)));
      const Learned learned = learn(models::TinyModels::get().path(name), data[name], {.activations = type});
      for (size_t step = 0; step < learned.losses.size(); ++step) {
        EXPECT_NEAR(learned.losses[step], want.at("losses")[static_cast<int64_t>(step)].item<double>(), tolerance * learned.losses[step]) << "step " << step;
      }
      for (const auto& [parameter, gradient] : learned.gradients) {
        const Tensor& right = exact.at("grad." + parameter);
        const double error = relative_error(gradient, right), reference = relative_error(want.at("grad." + parameter), right);
        EXPECT_GT(error, 0) << parameter;
        EXPECT_LT(error, 2 * reference + 0.1 * tolerance) << parameter;
      }
    }
  }
}

TEST(Training, SixteenBitActivationsHalveWhatBackwardKeeps) {
  for (const bool post_norms : {false, true}) {
    nn::Model model = testing::tiny_model({.vocab = 97,
                                           .hidden = 64,
                                           .heads = 4,
                                           .kv_heads = 2,
                                           .head_dim = 16,
                                           .intermediate = 160,
                                           .blocks = 4,
                                           .qk_norm = post_norms,
                                           .post_norms = post_norms});
    const std::vector<Parameter> parameters = all_parameters(model);
    const std::vector<int32_t> tokens = testing::random_tokens(512, 97);
    std::map<at::ScalarType, int64_t> kept;
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const ops::Autocast autocast(type);
      hidden_states(model, nn::Batch::equal_parts(tokens, 128));  // tables of positions
      const auto live = std::make_shared<LiveBytes>();
      const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, live);
      const Tensor hidden = hidden_states(model, nn::Batch::equal_parts(tokens, 128));
      kept[type] = live->bytes;
    }
    EXPECT_GT(kept[at::kFloat], 512 * 4 * 4 * (64 * 6 + 160 * 3));
    EXPECT_LT(kept[at::kBFloat16], 0.52 * kept[at::kFloat]);
    EXPECT_LT(kept[at::kHalf], 0.54 * kept[at::kFloat]);  // and a number for each row of a norm's input
  }
}

TEST(Training, FloatingPointOperationsAreThoseThatTorchCounts) {
  Rng rng(testing::test_seed());
  const models::Loader loader;
  std::string arguments;
  std::vector<double> counted;
  for (const std::string& name : models::TinyModels::get().names()) {
    const std::string path = models::TinyModels::get().path(name);
    const nn::LoadedModel loaded = loader.load(path);
    int64_t tokens = rng.between(9, 30);
    for (const nn::Block& block : loaded.model->blocks) {  // what is outside of a window counts for torch
      if (block.spec.sliding_window > 0) tokens = std::min(tokens, block.spec.sliding_window);
    }
    arguments += fmt::format("{} {} 0 ", path, tokens);
    counted.push_back(training_flops(*loaded.model).of(tokens, tokens));
  }
  std::istringstream lines(io::run_oracle("count_flops.py", arguments));
  for (size_t i = 0; i < counted.size(); ++i) {
    double torch = 0;
    lines >> torch;
    EXPECT_NEAR(counted[i], torch, 2e-3 * torch) << models::TinyModels::get().names()[i];  // rotary frequencies are a product there
  }
  const nn::LoadedModel loaded = loader.load(models::TinyModels::get().path(models::TinyModels::get().names()[0]));
  TrainingFlops flops = training_flops(*loaded.model);
  const double whole = flops.of(50, 0);
  for (TrainingFlops::Attention& block : flops.blocks) block.window = 10;
  double pairs = 0;
  for (const TrainingFlops::Attention& block : flops.blocks) pairs += block.per_pair * 50 * 40;
  EXPECT_NEAR(whole - flops.of(50, 0), pairs, 1e-9 * whole);
}

TEST(Training, FusedLossEqualsTheDefinitionWithItsGradients) {
  at::manual_seed(testing::test_seed());
  for (const double softcap : {0.0, 20.0}) {
    for (const bool tied : {true, false}) {
      nn::Model model = testing::tiny_model({.vocab = 150'000, .tied = tied});  // more rows than fit at once
      model.spec.logit_softcap = softcap;
      const std::vector<Parameter> parameters = all_parameters(model);
      Tensor targets = at::randint(0, model.spec.vocab, {200}, at::kLong);
      targets.narrow(0, 50, 40).fill_(kIgnored);
      const Tensor start = at::randn({200, model.spec.hidden});
      const Tensor hidden = start.clone().requires_grad_();
      const Tensor loss = cross_entropy(model, hidden, targets, 0.25);
      loss.backward();
      const Tensor exact_hidden = start.to(at::kDouble).requires_grad_(), exact_weight = model.head.dense().detach().to(at::kDouble).requires_grad_();
      const Tensor logits = at::matmul(exact_hidden, exact_weight.t());
      const Tensor capped = softcap > 0 ? at::tanh(logits / softcap) * softcap : logits;
      const Tensor exact = at::cross_entropy_loss(capped, targets, {}, at::Reduction::Sum, kIgnored) * 0.25;
      exact.backward();
      EXPECT_LT(relative_error(loss, exact), 1e-6);
      EXPECT_LT(relative_error(hidden.grad(), exact_hidden.grad()), 2e-6);
      EXPECT_LT(relative_error(model.head.dense().grad(), exact_weight.grad()), 2e-6);
      const at::NoGradGuard no_grad;
      EXPECT_LT(relative_error(cross_entropy(model, start, targets, 0.25), exact), 1e-6);
    }
  }
}

TEST(Training, LossOfNothingIsZeroAndWrongTargetsAreRefused) {
  const nn::Model model = testing::tiny_model();
  const Tensor hidden = at::randn({3, model.spec.hidden}).requires_grad_();
  const Tensor loss = cross_entropy(model, hidden, at::full({3}, kIgnored, at::kLong), 1);
  EXPECT_EQ(loss.item<double>(), 0);
  loss.backward();
  EXPECT_EQ(hidden.grad().abs().max().item<double>(), 0);
  EXPECT_THROW(cross_entropy(model, hidden, at::full({3}, model.spec.vocab, at::kLong), 1), Error);
  EXPECT_THROW(cross_entropy(model, hidden, at::full({3}, -1, at::kLong), 1), Error);
}

TEST(Training, RecomputationChangesNoBitOfAGradient) {
  Rng rng(testing::test_seed());
  nn::Model model = testing::tiny_model({.blocks = 5});
  const std::vector<Parameter> parameters = all_parameters(model);
  const data::Dataset dataset = random_dataset(rng, model.spec.vocab, 6, 40);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    std::vector<std::vector<Tensor>> gradients;
    for (const int64_t every : {0, 1, 2}) {
      clear(parameters);
      LanguageModeling objective(model, dataset, nullptr, {.recompute = {.every = every}, .activations = type});
      objective.accumulate({all_of(dataset), 0, 0}, 0.1, 0);
      gradients.emplace_back();
      for (const Parameter& parameter : parameters) gradients.back().push_back(parameter.tensor.grad().clone());
    }
    for (size_t i = 0; i < parameters.size(); ++i) {
      EXPECT_TRUE(at::equal(gradients[0][i], gradients[1][i])) << parameters[i].name;
      EXPECT_TRUE(at::equal(gradients[0][i], gradients[2][i])) << parameters[i].name;
    }
  }
}

TEST(Training, HeldOutLossIsTheMeanOverTargets) {
  Rng rng(testing::test_seed());
  const nn::Model model = testing::tiny_model();
  const data::Dataset dataset = random_dataset(rng, model.spec.vocab, 7, 30);
  LanguageModeling objective(model, dataset, &dataset, {.batches = {.micro_batch_size = 3}});
  double sum = 0;
  int64_t count = 0;
  for (const uint64_t id : all_of(dataset)) {
    const data::Example example = dataset.example(id);
    const Tensor logits = at::log_softmax(model.forward(nn::Batch::single(example.tokens, nullptr)).logits, -1);
    for (size_t i = 1; i < example.tokens.size(); ++i) {
      if (!example.trained[i]) continue;
      sum -= logits[static_cast<int64_t>(i - 1)][example.tokens[i]].item<double>();
      ++count;
    }
  }
  EXPECT_NEAR(objective.evaluate().value(), sum / static_cast<double>(count), 1e-5);
}

TEST(Training, DrawnTargetsFollowTheModelsDistribution) {
  at::manual_seed(testing::test_seed());
  const nn::Model model = testing::tiny_model({.vocab = 5});
  const Tensor hidden = at::randn({1, model.spec.hidden}).expand({20'000, -1}).contiguous() * 0.2;
  Tensor targets = at::zeros({20'000}, at::kLong);
  targets[7] = kIgnored;
  const Tensor drawn = drawn_targets(model, hidden, targets, 3);
  EXPECT_EQ(drawn[7].item<int64_t>(), kIgnored);
  EXPECT_TRUE(at::equal(drawn, drawn_targets(model, hidden, targets, 3)));
  EXPECT_FALSE(at::equal(drawn, drawn_targets(model, hidden, targets, 4)));
  const Tensor chances = at::softmax(model.logits(hidden.narrow(0, 0, 1)), -1)[0];
  for (int64_t id = 0; id < 5; ++id) {
    const double chance = chances[id].item<double>();
    EXPECT_NEAR((drawn == id).sum().item<double>() / 19'999, chance, 5 * std::sqrt(chance * (1 - chance) / 20'000)) << id;
  }
}

// Equation 7 of arXiv 2305.18290 from simple operators: log p of both answers under the model and under the one that it was.
TEST(Training, PreferenceLossAndGradientsEqualTheDefinition) {
  Rng rng(testing::test_seed());
  at::manual_seed(testing::test_seed());
  nn::Model model = testing::tiny_model();
  const std::vector<Parameter> parameters = all_parameters(model);
  data::Dataset dataset = random_dataset(rng, model.spec.vocab, 8, 20);
  dataset.pairs = true;
  const PreferenceOptions options{0.3, 0.1};
  Preference objective(model, dataset, {}, options);
  const auto log_likelihood = [&](uint64_t id) {
    const data::Example example = dataset.example(id);
    const Tensor logits = at::log_softmax(model.forward(nn::Batch::single(example.tokens, nullptr)).logits, -1);
    Tensor sum = at::zeros({});
    for (size_t i = 1; i < example.tokens.size(); ++i) {
      if (example.trained[i]) sum = sum + logits[static_cast<int64_t>(i - 1)][example.tokens[i]];
    }
    return sum;
  };
  std::vector<double> reference;
  for (const uint64_t id : all_of(dataset)) reference.push_back(log_likelihood(id).item<double>());
  {
    const at::NoGradGuard no_grad;  // the model goes away from its reference
    for (const Parameter& parameter : parameters) Tensor(parameter.tensor).add_(at::randn_like(parameter.tensor) * 0.02);
  }
  const MicroBatch batch{{2, 0, 3}, 0, 3};
  Tensor loss = at::zeros({});
  double margins = 0, right = 0;
  for (const uint64_t pair : batch.examples) {
    const Tensor margin = options.beta * ((log_likelihood(2 * pair) - reference[2 * pair]) - (log_likelihood(2 * pair + 1) - reference[2 * pair + 1]));
    loss = loss - (1 - options.label_smoothing) * at::log_sigmoid(margin) - options.label_smoothing * at::log_sigmoid(-margin);
    margins += margin.item<double>() / 3;
    right += margin.item<double>() > 0 ? 1.0 / 3 : 0;
  }
  clear(parameters);
  (loss / 3).backward();
  std::vector<Tensor> want;
  for (const Parameter& parameter : parameters) want.push_back(parameter.tensor.grad().clone());
  clear(parameters);
  EXPECT_NEAR(objective.accumulate(batch, 1.0 / 3, 0), loss.item<double>(), 1e-4);  // sums of log-likelihoods in float
  for (size_t i = 0; i < parameters.size(); ++i) EXPECT_LT(relative_error(parameters[i].tensor.grad(), want[i]), 1e-4) << parameters[i].name;
  const Json metrics = objective.metrics();
  EXPECT_NEAR(metrics["rewards/margins"].get<double>(), margins, 1e-4);
  EXPECT_NEAR(metrics["rewards/accuracies"].get<double>(), right, 1e-9);
  EXPECT_TRUE(objective.metrics().empty());
  dataset.pairs = false;
  EXPECT_THROW(Preference(model, dataset, {}, {}), Error);
}

}  // namespace
}  // namespace frugal::train
