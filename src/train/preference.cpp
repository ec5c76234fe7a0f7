#include "train/preference.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "base/error.h"
#include "base/progress.h"
#include "ops/autocast.h"
#include "train/cross_entropy.h"

namespace frugal::train {

using at::Tensor;

// The rows of both answers of each pair, in the order chosen, rejected.
struct Preference::Scored {
  TokenBatch tokens;
  Tensor hidden;
  std::vector<double> log_likelihoods;  // of each sequence
};

Preference::Scored Preference::score(const MicroBatch& batch) const {
  std::vector<uint64_t> examples;
  for (const uint64_t pair : batch.examples) {
    examples.push_back(2 * pair);
    examples.push_back(2 * pair + 1);
  }
  Scored scored{token_batch(dataset_, examples), {}, {}};
  FRUGAL_ASSERT(scored.tokens.batch.sequences.size() == examples.size());
  scored.hidden = hidden_states(model_, scored.tokens.batch, options_.recompute);
  const Tensor losses = token_losses(model_, scored.hidden, scored.tokens.targets).to(at::kDouble);
  for (const nn::SequenceSlice& slice : scored.tokens.batch.sequences)
    scored.log_likelihoods.push_back(-losses.narrow(0, slice.begin, slice.count).sum().item<double>());
  return scored;
}

Preference::Preference(const nn::Model& model, const data::Dataset& dataset, LanguageModelingOptions options, PreferenceOptions preference)
    : model_(model), dataset_(dataset), options_(std::move(options)), preference_(preference) {
  if (!dataset.pairs) fail(ErrorKind::invalid_input, "preferences are learned from rows with a chosen and a rejected answer");
  const at::NoGradGuard no_grad;
  const ops::Autocast autocast(options_.activations);  // as what is compared with it
  if (options_.set_training) options_.set_training(false);
  reference_.resize(dataset.size());
  const std::vector<MicroBatch> batches = micro_batches(dataset, options_.batches, 0);
  Progress progress("reference", std::ssize(batches));
  for (const MicroBatch& batch : batches) {
    const Scored scored = score(batch);
    for (size_t i = 0; i < batch.examples.size(); ++i) {
      for (size_t answer = 0; answer < 2; ++answer) reference_[2 * batch.examples[i] + answer] = scored.log_likelihoods[2 * i + answer];
    }
    progress.step();
  }
  if (options_.set_training) options_.set_training(true);
}

std::vector<MicroBatch> Preference::epoch(int64_t epoch) { return micro_batches(dataset_, options_.batches, epoch, options_.flops); }

// With m = beta ((log p - log p_ref)(chosen) - (log p - log p_ref)(rejected)) and smoothing e, the loss of a pair is
// -(1 - e) log s(m) - e log s(-m), s the logistic function; its slope by m is s(m) - (1 - e).
double Preference::accumulate(const MicroBatch& batch, double scale, uint64_t seed) {
  if (options_.seed_randomness) options_.seed_randomness(seed);
  const ops::Autocast autocast(options_.activations);
  const Scored scored = score(batch);
  const auto log_logistic = [](double x) { return x < 0 ? x - std::log1p(std::exp(x)) : -std::log1p(std::exp(-x)); };
  Tensor weights = at::zeros({scored.hidden.size(0)}, at::kFloat);
  double loss = 0;
  for (size_t i = 0; i < batch.examples.size(); ++i) {
    const uint64_t pair = batch.examples[i];
    const double chosen = preference_.beta * (scored.log_likelihoods[2 * i] - reference_[2 * pair]);
    const double rejected = preference_.beta * (scored.log_likelihoods[2 * i + 1] - reference_[2 * pair + 1]);
    const double margin = chosen - rejected, smoothing = preference_.label_smoothing;
    loss -= (1 - smoothing) * log_logistic(margin) + smoothing * log_logistic(-margin);
    const double slope = std::exp(log_logistic(margin)) - (1 - smoothing);
    const auto& sequences = scored.tokens.batch.sequences;
    // The head's losses are -log p.
    weights.narrow(0, sequences[2 * i].begin, sequences[2 * i].count).fill_(-slope * preference_.beta);
    weights.narrow(0, sequences[2 * i + 1].begin, sequences[2 * i + 1].count).fill_(slope * preference_.beta);
    chosen_ += chosen;
    rejected_ += rejected;
    right_ += margin > 0;
    ++pairs_;
  }
  torch::autograd::backward({cross_entropy(model_, scored.hidden, scored.tokens.targets, scale, weights)}, {});
  return loss;
}

Json Preference::metrics() {
  if (pairs_ == 0) return Json::object();
  const auto count = static_cast<double>(pairs_);
  Json metrics = {{"rewards/chosen", chosen_ / count},
                  {"rewards/rejected", rejected_ / count},
                  {"rewards/margins", (chosen_ - rejected_) / count},
                  {"rewards/accuracies", right_ / count}};
  chosen_ = rejected_ = right_ = 0;
  pairs_ = 0;
  return metrics;
}

Json Preference::fingerprint() const {
  Json fingerprint = fingerprint_of(dataset_, options_.batches);
  fingerprint["beta"] = preference_.beta;
  fingerprint["label_smoothing"] = preference_.label_smoothing;
  return fingerprint;
}

}  // namespace frugal::train
