// Losses and gradients of distillation against their definitions by torch's autograd, over whole logits, and what the student writes itself.
#include "distill/distillation.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <torch/csrc/autograd/autograd.h>

#include "base/rng.h"
#include "oracle.h"
#include "tiny_model.h"
#include "train/continuation.h"
#include "train/full_parameters.h"
#include "train/optimizer.h"

namespace frugal::distill {
namespace {

using at::Tensor;
using testing::relative_error;
using train::continuations;
using train::Divergence;
using train::divergence;

Tensor kl(const Tensor& p, const Tensor& q) { return at::xlogy(p, p).sub(p * q.log()).sum(1); }

// The definitions, in float64, differentiable.
Tensor defined(const Tensor& student, const Tensor& teacher, Divergence kind, double temperature, double beta) {
  const Tensor q = at::softmax(student / temperature, 1), p = at::softmax(teacher / temperature, 1);
  if (kind == Divergence::forward_kl) return kl(p, q);
  if (kind == Divergence::reverse_kl) return kl(q, p);
  if (kind == Divergence::skew_kl) return kl(p, beta * p + (1 - beta) * q);
  if (kind == Divergence::skew_reverse_kl) return kl(q, (1 - beta) * p + beta * q);
  const Tensor m = beta * p + (1 - beta) * q;
  return beta * kl(p, m) + (1 - beta) * kl(q, m);
}

TEST(Divergence, ValuesAndGradientsAreThoseOfTheDefinition) {
  at::manual_seed(testing::test_seed());
  for (const Divergence kind : {Divergence::forward_kl, Divergence::reverse_kl, Divergence::jensen_shannon, Divergence::skew_kl, Divergence::skew_reverse_kl}) {
    for (const double temperature : {0.7, 1.0, 4.0}) {
      for (const double beta : {0.1, 0.5, 0.9}) {
        const Tensor student = 3 * at::randn({7, 45}), teacher = 3 * at::randn({7, 45});
        const train::RowLoss ours = divergence(student, teacher, kind, temperature, beta);
        const Tensor exact = student.to(at::kDouble).requires_grad_(true);
        const Tensor want = defined(exact, teacher.to(at::kDouble), kind, temperature, beta);
        torch::autograd::backward({want.sum()}, {});
        // A skewed one may compare with nearly the distribution itself: there is little left of large logarithms.
        const double tolerance = kind == Divergence::skew_kl || kind == Divergence::skew_reverse_kl ? 1e-4 : 1e-5;
        EXPECT_LT(relative_error(ours.values.to(at::kDouble), want.detach()), tolerance);
        EXPECT_LT(relative_error(ours.gradient.to(at::kDouble), exact.grad()), tolerance);
      }
    }
  }
}

TEST(Divergence, StaysFiniteWhereDistributionsDoNotOverlap) {
  Tensor student = at::zeros({2, 5}), teacher = at::zeros({2, 5});
  student[0][0] = 400;
  teacher[0][1] = 400;
  for (const Divergence kind : {Divergence::forward_kl, Divergence::reverse_kl, Divergence::jensen_shannon, Divergence::skew_kl, Divergence::skew_reverse_kl}) {
    const train::RowLoss far = divergence(student, teacher, kind, 1, 0.5);
    EXPECT_TRUE(far.values.isfinite().all().item<bool>());
    EXPECT_TRUE(far.gradient.isfinite().all().item<bool>());
    EXPECT_NEAR(far.values[1].item<double>(), 0, 1e-6);
  }
}

data::Dataset rows(Rng& rng, int64_t vocab, int count) {
  data::Dataset dataset;
  for (int i = 0; i < count; ++i) {
    const int64_t length = rng.between(5, 20), answer = rng.between(2, 4);
    for (int64_t t = 0; t < length; ++t) {
      dataset.tokens.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocab))));
      dataset.trained.push_back(t >= answer);
    }
    dataset.offsets.push_back(dataset.tokens.size());
  }
  dataset.fingerprint = "rows";
  return dataset;
}

struct Setting {
  nn::Model student = testing::tiny_model({.vocab = 61, .blocks = 1, .tied = false});
  std::vector<std::shared_ptr<const nn::Model>> teachers;
  Rng rng{testing::test_seed()};
  data::Dataset data = rows(rng, 61, 5);
  std::vector<train::Parameter> parameters = train::all_parameters(student);

  explicit Setting(int count = 1) {
    for (int i = 0; i < count; ++i) teachers.push_back(std::make_shared<nn::Model>(testing::tiny_model({.vocab = i == 0 ? 64 : 61})));
  }
  Distillation distillation(const DistillationOptions& method, std::function<void(bool)> set_training = {}) {
    train::LanguageModelingOptions options;
    options.batches = {.seed = 1, .micro_batch_size = 5, .sequence_len = 64, .sample_packing = false};
    options.set_training = std::move(set_training);
    return {student, teachers, data, method.adaptive ? &data : nullptr, std::move(options), method, {7}};
  }
  Tensor gradients() {
    std::vector<Tensor> all;
    for (const train::Parameter& parameter : parameters) {
      all.push_back(parameter.tensor.grad().defined() ? parameter.tensor.grad().flatten().clone() : at::zeros({parameter.tensor.numel()}));
      parameter.tensor.mutable_grad() = Tensor();
    }
    return at::cat(all);
  }
  // Logits of the rows that have a target, and the targets: of the student with its graph.
  Tensor logits(const nn::Model& model, const train::TokenBatch& tokens, const Tensor& at) const {
    return model.logits(train::hidden_states(model, tokens.batch).index_select(0, at));
  }
};

Options options_of(const std::string& id, const std::vector<std::pair<std::string, std::string>>& given) {
  return Options(id, distill_table().at(id).options, given);
}

TEST(Distillation, LossAndGradientsAreThoseOfWholeLogits) {
  at::manual_seed(testing::test_seed());
  const std::pair<const char*, std::vector<std::pair<std::string, std::string>>> methods[] = {{"kd-forward", {{"temperature", "3"}, {"alpha", "0.3"}}},
                                                                                              {"kd-forward", {{"alpha", "1"}}},
                                                                                              {"babyllama", {}},
                                                                                              {"gkd", {{"lmbda", "0"}, {"beta", "0"}}},
                                                                                              {"gkd", {{"lmbda", "0"}, {"beta", "1"}}},
                                                                                              {"gkd", {{"lmbda", "0"}, {"beta", "0.2"}}},
                                                                                              {"distillm", {{"loss", "skl"}, {"skew_alpha", "0.3"}}},
                                                                                              {"distillm", {}}};
  for (const auto& [id, given] : methods) {
    SCOPED_TRACE(id);
    const DistillationOptions method = distill_table().at(id).function(options_of(id, given));
    Setting setting(method.several_teachers ? 3 : 1);
    Distillation distillation = setting.distillation(method);
    const auto batches = distillation.epoch(0);
    ASSERT_EQ(batches.size(), 1u);
    const double loss = distillation.accumulate(batches[0], 0.25, 9);
    const Tensor ours = setting.gradients();

    const train::TokenBatch tokens = train::token_batch(setting.data, batches[0].examples);
    const Tensor at = (tokens.targets != -100).nonzero().squeeze(1), targets = tokens.targets.index_select(0, at);
    const Tensor student = setting.logits(setting.student, tokens, at).to(at::kDouble);
    Tensor teacher = at::zeros({at.numel(), 61}, at::kDouble);
    for (const auto& one : setting.teachers) teacher = teacher + setting.logits(*one, tokens, at).detach().narrow(1, 0, 61).to(at::kDouble);
    teacher = teacher / static_cast<double>(setting.teachers.size());
    const double square = method.scale_by_temperature ? method.temperature * method.temperature : 1;
    const Tensor soft = defined(student, teacher, method.divergence, method.temperature, method.beta).sum() * square;
    const Tensor hard = -at::log_softmax(student, 1).gather(1, targets.unsqueeze(1)).sum();
    const Tensor want = method.weight * soft + (1 - method.weight) * hard;
    torch::autograd::backward({0.25 * want}, {});
    EXPECT_NEAR(loss, want.item<double>(), 1e-4 * std::abs(want.item<double>()));
    EXPECT_LT(relative_error(ours, setting.gradients()), 1e-4);
    EXPECT_EQ(distillation.metrics().contains("distillation/cross_entropy"), method.weight < 1);
  }
}

// The sum over tokens of what MiniLLM's gradient is of (section 2.2), written out with autograd, over what the student wrote.
TEST(Distillation, MiniLlmsGradientIsThePapers) {
  at::manual_seed(testing::test_seed());
  const DistillationOptions method = distill_table().at("minillm").function(options_of("minillm", {{"max_new_tokens", "6"}, {"lm_coef", "0.5"}}));
  Setting setting;
  Distillation distillation = setting.distillation(method);
  const auto batches = distillation.epoch(0);
  distillation.accumulate(batches[0], 1, 9);
  const Tensor ours = setting.gradients();

  Rng rng(9);
  rng.next();  // whether it is the student's turn
  std::vector<std::span<const int32_t>> prompts;
  for (const uint64_t id : batches[0].examples) {
    const data::Example example = setting.data.example(id);
    prompts.push_back(example.tokens.first(static_cast<size_t>(std::find(example.trained.begin(), example.trained.end(), 1) - example.trained.begin())));
  }
  const auto answers = continuations(setting.student, prompts, {.max_new_tokens = 6, .longest = 64, .end_ids = {7}, .seed = rng.next()},
                                     setting.teachers[0].get(), method.teacher_share);
  Tensor objective = at::zeros({}, at::kDouble);
  int64_t written = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    std::vector<int32_t> all(prompts[i].begin(), prompts[i].end());
    all.insert(all.end(), answers[i].begin(), answers[i].end());
    const nn::Batch batch = nn::Batch::single(std::span(all).first(all.size() - 1), nullptr);
    const auto length = std::ssize(answers[i]), first = std::ssize(prompts[i]) - 1;
    const Tensor q = at::log_softmax(setting.student.logits(train::hidden_states(setting.student, batch)).narrow(0, first, length).to(at::kDouble), 1);
    const Tensor p =
        at::log_softmax(
            setting.teachers[0]->logits(train::hidden_states(*setting.teachers[0], batch)).narrow(0, first, length).narrow(1, 0, 61).to(at::kDouble), 1)
            .detach();
    const Tensor wide =
        at::log_softmax(setting.teachers[0]->logits(train::hidden_states(*setting.teachers[0], batch)).narrow(0, first, length).to(at::kDouble), 1).detach();
    for (int64_t t = 0; t < length; ++t) {
      const int64_t token = answers[i][static_cast<size_t>(t)];
      const double log_q = q[t][token].item<double>(), log_p = wide[t][token].item<double>();
      const double weight = std::exp(log_q) / (method.teacher_share * std::exp(log_p) + (1 - method.teacher_share) * std::exp(log_q));
      double rest = 0;
      for (int64_t u = t + 1; u < length; ++u) {
        const int64_t other = answers[i][static_cast<size_t>(u)];
        rest += wide[u][other].item<double>() - q[u][other].item<double>();
      }
      if (t + 1 < length) rest /= static_cast<double>(length - t - 1);
      objective = objective + weight * (q[t].exp() * (q[t] - p[t])).sum() - weight * rest * q[t][token];
      ++written;
    }
  }
  objective = objective * (static_cast<double>(batches[0].targets) / static_cast<double>(written));
  const train::TokenBatch tokens = train::token_batch(setting.data, batches[0].examples);
  const Tensor at = (tokens.targets != -100).nonzero().squeeze(1);
  objective =
      objective -
      0.5 * at::log_softmax(setting.logits(setting.student, tokens, at).to(at::kDouble), 1).gather(1, tokens.targets.index_select(0, at).unsqueeze(1)).sum();
  torch::autograd::backward({objective}, {});
  EXPECT_LT(relative_error(ours, setting.gradients()), 1e-4);
}

TEST(Distillation, TheStudentWritesAsOftenAsItIsTold) {
  at::manual_seed(testing::test_seed());
  Setting setting;
  int off = 0;
  Distillation distillation = setting.distillation(distill_table().at("gkd").function(options_of("gkd", {{"lmbda", "0.3"}, {"max_new_tokens", "2"}})),
                                                   [&](bool training) { off += !training; });
  const auto batches = distillation.epoch(0);
  constexpr int kRounds = 400;
  for (int i = 0; i < kRounds; ++i) {
    distillation.accumulate(batches[0], 1, static_cast<uint64_t>(i));
    setting.gradients();
  }
  EXPECT_NEAR(off, 0.3 * kRounds, 50);  // five deviations
  EXPECT_NEAR(distillation.metrics()["distillation/on_policy"].get<double>(), static_cast<double>(off) / kRounds, 1e-9);
  std::vector<Tensor> same;
  for (int i = 0; i < 2; ++i) {  // a step that is computed again is the same
    distillation.accumulate(batches[0], 1, 1234);
    same.push_back(setting.gradients());
  }
  EXPECT_TRUE(at::equal(same[0], same[1]));
}

TEST(Continuations, AreDrawnFromTheMixAndDoNotDependOnTheirNeighbours) {
  at::manual_seed(testing::test_seed());
  const nn::Model model = testing::tiny_model({.vocab = 11}), other = testing::tiny_model({.vocab = 13});
  const std::vector<int32_t> prompt = {1, 2, 3};
  const auto chances = [&](const nn::Model& m) {
    const at::NoGradGuard no_grad;
    return at::softmax(m.forward(nn::Batch::single(prompt, nullptr)).logits[-1], 0);
  };
  const Tensor mix = 0.75 * chances(model) + 0.25 * chances(other).narrow(0, 0, 11);
  constexpr int kDraws = 6000;
  const std::vector<std::span<const int32_t>> prompts(kDraws, prompt);
  const auto drawn = continuations(model, prompts, {.max_new_tokens = 1, .seed = testing::test_seed()}, &other, 0.25);
  Tensor counts = at::zeros({11});
  for (const auto& one : drawn) counts[one.at(0)] += 1;
  const Tensor want = mix / mix.sum();
  EXPECT_LT((counts / kDraws - want).abs().max().item<double>(), 0.04);

  const std::vector<int32_t> longer = {4, 5, 6, 7, 8, 9, 10}, one = {2};
  const std::vector<std::span<const int32_t>> together = {prompt, longer, one}, first = {prompt};
  for (const double temperature : {0.0, 1.0}) {
    const train::ContinuationOptions options{.max_new_tokens = 9, .longest = 12, .temperature = temperature, .end_ids = {0}, .seed = 5};
    const auto all = continuations(model, together, options);
    EXPECT_EQ(all[0], continuations(model, first, options)[0]);
    EXPECT_LE(all[0].size(), 9u);
    EXPECT_LE(all[1].size(), 5u) << "prompt and answer are at most 12";
    for (const auto& answer : all) {
      for (size_t t = 0; t + 1 < answer.size(); ++t) EXPECT_NE(answer[t], 0) << "nothing follows an end";
    }
  }
  // The likeliest token each time, by whole forwards.
  const auto greedy = continuations(model, first, {.max_new_tokens = 6, .temperature = 0})[0];
  std::vector<int32_t> read = prompt;
  for (const int32_t token : greedy) {
    const at::NoGradGuard no_grad;
    const Tensor logits = model.forward(nn::Batch::single(read, nullptr)).logits[-1];
    EXPECT_LT((logits.max() - logits[token]).item<double>(), 1e-4);
    read.push_back(token);
  }
}

// Every method brings a student nearer to its teacher than it was.
TEST(Distillation, BringsTheStudentNearer) {
  at::manual_seed(testing::test_seed());
  for (const auto& row : distill_table().rows()) {
    std::vector<std::pair<std::string, std::string>> given;
    if (row.id == "gkd") given = {{"lmbda", "0.5"}};
    if (row.id == "minillm") given = {{"lm_coef", "0"}};
    if (row.id == "kd-forward" || row.id == "babyllama") given = {{"alpha", "1"}};
    if (row.id == "gkd" || row.id == "minillm" || row.id == "distillm") given.emplace_back("max_new_tokens", "8");
    if (row.id == "distillm") given.insert(given.end(), {{"init_threshold", "0.5"}, {"capacity", "20"}});
    const DistillationOptions method = row.function(options_of(row.id, given));
    if (method.text_only) continue;
    Setting setting(method.several_teachers ? 2 : 1);
    {  // distributions as wide as those of language
      const at::NoGradGuard no_grad;
      setting.student.final_norm.weight.mul_(0.3);
      for (const auto& teacher : setting.teachers) teacher->final_norm.weight.mul_(0.3);
    }
    Distillation distillation = setting.distillation(method);
    const auto batches = distillation.epoch(0);
    const train::TokenBatch tokens = train::token_batch(setting.data, batches[0].examples);
    const Tensor at = (tokens.targets != -100).nonzero().squeeze(1);
    const auto distance = [&] {
      if (method.policy_gradient) {  // it is nearer on what it writes itself
        double sum = 0;
        for (uint64_t seed = 1000; seed < 1010; ++seed) sum += distillation.accumulate(batches[0], 1, seed) / static_cast<double>(batches[0].targets);
        setting.gradients();
        return sum / 10;
      }
      const at::NoGradGuard no_grad;
      const Tensor student = setting.logits(setting.student, tokens, at);
      Tensor teacher = at::zeros_like(student);
      for (const auto& one : setting.teachers) teacher += setting.logits(*one, tokens, at).narrow(1, 0, 61);
      return divergence(student, teacher / static_cast<double>(setting.teachers.size()), Divergence::reverse_kl, 1, 0.5).values.mean().item<double>();
    };
    const double before = distance();
    const auto& adamw = train::optimizer_table().at("adamw");
    const auto optimizer = adamw.function(setting.parameters, Options("adamw", adamw.options, {}));
    const uint64_t steps = method.policy_gradient ? 400 : 60;
    for (uint64_t step = 0; step < steps; ++step) {
      distillation.accumulate(batches[0], 1.0 / static_cast<double>(batches[0].targets), step);
      optimizer->step(3e-3);
      setting.gradients();
    }
    EXPECT_LT(distance(), 0.8 * before) << row.id;
  }
}

}  // namespace
}  // namespace frugal::distill
