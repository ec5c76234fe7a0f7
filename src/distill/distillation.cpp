#include "distill/distillation.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "base/error.h"
#include "base/rng.h"
#include "ops/autocast.h"
#include "train/continuation.h"
#include "train/cross_entropy.h"
#include "train/logit_distillation.h"

namespace frugal::distill {

using at::Tensor;
using train::kIgnored;

namespace {

// Of each row what comes after the prompt is learned.
train::TokenBatch batch_of(const std::vector<WrittenRow>& rows) {
  std::vector<std::vector<uint8_t>> trained;
  for (const WrittenRow& row : rows) {
    trained.emplace_back(row.prompt, 0);
    trained.back().resize(row.tokens.size(), 1);
  }
  std::vector<data::Example> examples;
  for (size_t i = 0; i < rows.size(); ++i) examples.push_back({rows[i].tokens, trained[i]});
  return train::token_batch(examples);
}

// Of each row its importance weight and the mean of log p - log q over the rows after it (MiniLLM, section 2.2).
struct Returns {
  Tensor weights, rewards;  // [rows] float32
};

Returns returns_of(const train::TokenBatch& tokens, const Tensor& log_q, const Tensor& log_p, double teacher_share) {
  Returns returns{at::zeros_like(log_q), at::zeros_like(log_q)};
  const auto q = log_q.accessor<float, 1>(), p = log_p.accessor<float, 1>();
  const auto targets = tokens.targets.accessor<int64_t, 1>();
  auto weights = returns.weights.accessor<float, 1>(), rewards = returns.rewards.accessor<float, 1>();
  for (const nn::SequenceSlice& slice : tokens.batch.sequences) {
    double sum = 0;
    int64_t after = 0;
    for (int64_t t = slice.begin + slice.count - 1; t >= slice.begin; --t) {
      if (targets[t] == kIgnored) continue;
      rewards[t] = after > 0 ? static_cast<float>(sum / static_cast<double>(after)) : 0;
      const double ratio = static_cast<double>(p[t]) - static_cast<double>(q[t]);
      weights[t] = static_cast<float>(1 / (1 - teacher_share + teacher_share * std::exp(ratio)));  // q / (share p + (1 - share) q)
      sum += ratio;
      ++after;
    }
  }
  return returns;
}

}  // namespace

Distillation::Distillation(const nn::Model& student, std::vector<std::shared_ptr<const nn::Model>> teachers, const data::Dataset& dataset,
                           const data::Dataset* held_out, train::LanguageModelingOptions options, DistillationOptions method, std::vector<int32_t> end_ids)
    : LanguageModeling(student, dataset, held_out, std::move(options)), teachers_(std::move(teachers)), method_(method), end_ids_(std::move(end_ids)) {
  FRUGAL_ASSERT(!teachers_.empty() && !method.text_only);
  if (dataset.pairs) fail(ErrorKind::invalid_input, "rows with a chosen and a rejected answer have no one answer to distil");
  if (!method_.adaptive) return;
  if (!held_out) fail(ErrorKind::invalid_input, "without held-out data there is no loss for the share of the student's rows to follow");
  if (method_.capacity < static_cast<int64_t>(options_.batches.micro_batch_size)) {
    fail(ErrorKind::invalid_input, "capacity: a micro-batch of {} examples is not drawn from {} rows", options_.batches.micro_batch_size, method_.capacity);
  }
  replay_.emplace(method_.capacity, static_cast<int64_t>(options_.batches.sequence_len), method_.on_policy, method_.loss_eps);
}

std::vector<WrittenRow> Distillation::written_by_student(const train::MicroBatch& batch, uint64_t seed) const {
  std::vector<std::span<const int32_t>> prompts;
  for (const uint64_t id : batch.examples) prompts.push_back(train::prompt_of(dataset_.example(id)));
  if (options_.set_training) options_.set_training(false);
  const train::ContinuationOptions sampling{method_.max_new_tokens, static_cast<int64_t>(options_.batches.sequence_len), method_.sampling_temperature, end_ids_,
                                            seed};
  const auto answers = train::continuations(model_, prompts, sampling, method_.teacher_share > 0 ? teachers_.front().get() : nullptr, method_.teacher_share);
  if (options_.set_training) options_.set_training(true);
  std::vector<WrittenRow> rows;
  for (size_t i = 0; i < prompts.size(); ++i) {
    rows.push_back({{prompts[i].begin(), prompts[i].end()}, prompts[i].size()});
    rows.back().tokens.insert(rows.back().tokens.end(), answers[i].begin(), answers[i].end());
  }
  return rows;
}

std::optional<std::vector<WrittenRow>> Distillation::own_rows(const train::MicroBatch& batch, Rng& rng) {
  const double chance = rng.uniform();
  if (!replay_) return chance < method_.on_policy ? std::optional(written_by_student(batch, rng.next())) : std::nullopt;
  if (!replay_->knows_loss()) replay_->set_loss(evaluate().value());
  switch (replay_->source(chance)) {
    case RowSource::data: return {};
    case RowSource::buffer: return replay_->draw(batch.examples.size(), rng);
    case RowSource::student: break;
  }
  std::vector<WrittenRow> rows = written_by_student(batch, rng.next());
  replay_->add(rows);
  return rows;
}

Tensor Distillation::teacher_logits(const std::vector<Tensor>& hidden, const Tensor& rows) const {
  Tensor sum = teachers_.front()->logits(hidden.front().index_select(0, rows));
  for (size_t i = 1; i < teachers_.size(); ++i) {
    const Tensor more = teachers_[i]->logits(hidden[i].index_select(0, rows));
    const int64_t common = std::min(sum.size(1), more.size(1));
    sum = sum.narrow(1, 0, common) + more.narrow(1, 0, common);
  }
  return teachers_.size() == 1 ? sum : sum / static_cast<double>(teachers_.size());
}

// Adds the gradient of scale * (sum over the targets of their losses); returns that sum. own: the student wrote the targets.
double Distillation::backward(const train::TokenBatch& tokens, double scale, bool own) {
  const ops::Autocast autocast(options_.activations);
  const Tensor hidden = train::hidden_states(model_, tokens.batch, options_.recompute);
  std::vector<Tensor> theirs;
  Returns returns;
  {
    const at::NoGradGuard no_grad;
    for (const auto& teacher : teachers_) theirs.push_back(train::hidden_states(*teacher, tokens.batch));
    if (method_.policy_gradient) {
      returns = returns_of(tokens, -train::token_losses(model_, hidden, tokens.targets),
                           -train::token_losses(*teachers_.front(), theirs.front(), tokens.targets), method_.teacher_share);
    }
  }
  const Tensor rows = (tokens.targets != kIgnored).nonzero().squeeze(1);
  const bool labels = method_.weight < 1 && !own;
  const double soft = (labels ? method_.weight : 1) * (method_.scale_by_temperature ? method_.temperature * method_.temperature : 1);
  double loss = 0;
  train::backward_by_rows(model_, hidden, rows, [&](const Tensor& logits, const Tensor& part) {
    const Tensor teacher = teacher_logits(theirs, part);
    const int64_t common = std::min(logits.size(1), teacher.size(1));
    train::RowLoss rowwise =
        train::divergence(logits.narrow(1, 0, common), teacher.narrow(1, 0, common), method_.divergence, method_.temperature, method_.beta);
    if (method_.policy_gradient) {
      const Tensor weights = returns.weights.index_select(0, part);
      rowwise.values.mul_(weights);
      rowwise.gradient.mul_(weights.unsqueeze(1));
    }
    const double value = rowwise.sum();
    divergence_ += value;
    loss += soft * value;
    Tensor gradient = at::constant_pad_nd(rowwise.gradient.mul_(soft), {0, logits.size(1) - common});
    if (labels || method_.policy_gradient) {
      const train::RowLoss label = train::label_loss(logits, tokens.targets.index_select(0, part));
      if (labels) {
        const double entropy = label.sum();
        cross_entropy_ += entropy;
        loss += (1 - method_.weight) * entropy;
        gradient.add_(label.gradient, 1 - method_.weight);
      } else {
        gradient.addcmul_(label.gradient, (returns.weights.index_select(0, part) * returns.rewards.index_select(0, part)).unsqueeze(1));
      }
    }
    return gradient.mul_(scale);
  });
  return loss;
}

// The cross-entropy of the data's rows, beside those that the student wrote.
double Distillation::labels(const train::MicroBatch& batch, double scale) {
  const ops::Autocast autocast(options_.activations);
  const train::TokenBatch tokens = train::token_batch(dataset_, batch.examples);
  const Tensor loss = train::cross_entropy(model_, train::hidden_states(model_, tokens.batch, options_.recompute), tokens.targets, scale);
  torch::autograd::backward({loss}, {});
  return loss.item<double>() / scale;
}

double Distillation::accumulate(const train::MicroBatch& batch, double scale, uint64_t seed) {
  Rng rng(seed);
  const auto rows = own_rows(batch, rng);
  const bool own = rows.has_value();
  const train::TokenBatch tokens = own ? batch_of(*rows) : train::token_batch(dataset_, batch.examples);
  if (options_.seed_randomness) options_.seed_randomness(seed);
  const auto targets = static_cast<double>(batch.targets);
  const int64_t learned = (tokens.targets != kIgnored).sum().item<int64_t>();
  double loss = 0;
  if (learned > 0) {
    const double share = targets / static_cast<double>(learned);
    const double before = divergence_;
    loss = share * backward(tokens, scale * share, own);
    divergence_ = before + share * (divergence_ - before);
  }
  if (own && method_.label_weight > 0) {
    const double entropy = labels(batch, scale * method_.label_weight);
    cross_entropy_ += entropy;
    loss += method_.label_weight * entropy;
  }
  own_ += own ? targets : 0;
  targets_ += targets;
  return loss;
}

double Distillation::loss(const train::MicroBatch& batch, uint64_t seed) { return Objective::loss(batch, seed); }
void Distillation::accumulate_drawn(const train::MicroBatch& batch, double scale, uint64_t seed) { Objective::accumulate_drawn(batch, scale, seed); }

Json Distillation::metrics() {
  if (targets_ == 0) return Json::object();
  Json metrics = {{"distillation/divergence", divergence_ / targets_}};
  if (method_.weight < 1 || method_.label_weight > 0) metrics["distillation/cross_entropy"] = cross_entropy_ / targets_;
  if (method_.on_policy > 0 || replay_) metrics["distillation/on_policy"] = own_ / targets_;
  divergence_ = cross_entropy_ = own_ = targets_ = 0;
  return metrics;
}

}  // namespace frugal::distill
