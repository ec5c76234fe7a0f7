#include "eval/perplexity.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/progress.h"

namespace frugal::eval {
namespace {

// Mean and standard error of the mean.
struct Mean {
  double sum = 0, squares = 0;
  int64_t count = 0;
  void add(double value) {
    sum += value;
    squares += value * value;
    ++count;
  }
  void add(const at::Tensor& values) {
    const at::Tensor v = values.to(at::kDouble);
    sum += v.sum().item<double>();
    squares += v.square().sum().item<double>();
    count += v.numel();
  }
  double mean() const { return sum / static_cast<double>(count); }
  double root_mean_square() const { return std::sqrt(squares / static_cast<double>(count)); }
  double standard_error() const {
    if (count < 2) return 0;
    const double variance = squares / static_cast<double>(count) - mean() * mean();
    return variance > 0 ? std::sqrt(variance / static_cast<double>(count - 1)) : 0;
  }
};

int64_t chunk_count(const EvalText& text, const PerplexityOptions& options) {
  if (options.ctx < 8) fail(ErrorKind::invalid_input, "ctx must be at least 8 tokens, is {}", options.ctx);
  const int64_t available = static_cast<int64_t>(text.tokens.size()) / options.ctx;
  if (available == 0) {
    fail(ErrorKind::invalid_input, "{}: {} tokens, less than one chunk of {}", text.name, text.tokens.size(), options.ctx);
  }
  if (options.chunks > available) {
    fail(ErrorKind::invalid_input, "{}: {} chunks of {} tokens are wanted, the text has {}", text.name, options.chunks, options.ctx, available);
  }
  return options.chunks > 0 ? options.chunks : available;
}

// The value below which `share` of the sorted values lie, interpolated.
double quantile(const std::vector<double>& sorted, double share) {
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

// What the run holds against a base, chunk by chunk.
class Comparison {
 public:
  void add(const at::Tensor& base_log_p, const at::Tensor& log_p, const at::Tensor& targets) {
    const at::Tensor target = targets.unsqueeze(1);
    const at::Tensor base_right = base_log_p.gather(1, target).to(at::kDouble), right = log_p.gather(1, target).to(at::kDouble);
    difference_.add((base_right - right).mean().item<double>());
    delta_p_.add(right.exp() - base_right.exp());
    const at::Tensor kl = (base_log_p.exp() * (base_log_p - log_p)).sum(-1).to(at::kDouble).contiguous();
    kl_.add(kl);
    kl_values_.insert(kl_values_.end(), kl.const_data_ptr<double>(), kl.const_data_ptr<double>() + kl.numel());
    agreed_ += base_log_p.argmax(-1).eq(log_p.argmax(-1)).sum().item<int64_t>();
  }

  void write(Perplexity& result) {
    result.ln_ratio = difference_.mean();
    result.ln_ratio_stderr = difference_.standard_error();
    result.kl_mean = kl_.mean();
    result.kl_stderr = kl_.standard_error();
    std::sort(kl_values_.begin(), kl_values_.end());
    result.kl_median = quantile(kl_values_, 0.5);
    result.kl_p90 = quantile(kl_values_, 0.9);
    result.kl_p99 = quantile(kl_values_, 0.99);
    result.kl_max = kl_values_.back();
    result.delta_p_mean = delta_p_.mean();
    result.delta_p_stderr = delta_p_.standard_error();
    result.delta_p_rms = delta_p_.root_mean_square();
    result.top1_agreement = static_cast<double>(agreed_) / static_cast<double>(kl_values_.size());
  }

 private:
  Mean difference_, kl_, delta_p_;
  std::vector<double> kl_values_;
  int64_t agreed_ = 0;
};

}  // namespace

ScoredChunk score_chunk(const nn::Model& model, const EvalText& text, int64_t ctx, int64_t chunk) {
  const int64_t first = ctx / 2, scored = ctx - 1 - first;
  std::vector<int32_t> tokens(text.tokens.begin() + chunk * ctx, text.tokens.begin() + (chunk + 1) * ctx);
  const at::Tensor targets = at::tensor(at::ArrayRef<int32_t>(tokens), at::kInt).narrow(0, first + 1, scored).to(at::kLong);
  if (text.bos) tokens[0] = *text.bos;
  const nn::ForwardResult result = model.forward(nn::Batch::single(tokens, nullptr), {nn::ForwardOptions::Logits::none});
  return {at::log_softmax(model.logits(result.hidden.narrow(0, first, scored)), -1), targets};
}

Perplexity evaluate_perplexity(const nn::Model& model, const EvalText& text, const PerplexityOptions& options, const BaseScores* base, const ScoreSink& sink) {
  const c10::InferenceMode inference;
  const int64_t chunks = chunk_count(text, options);
  if (base && base->chunks() != chunks) {
    fail(ErrorKind::invalid_input, "the base was scored on {} chunks, this run has {}", base->chunks(), chunks);
  }
  if (base && base->vocab() != model.spec.vocab) {
    fail(ErrorKind::invalid_input, "the base has a vocabulary of {} tokens, this model of {}: they cannot be compared", base->vocab(), model.spec.vocab);
  }
  Mean nll;
  Comparison comparison;
  Progress progress("evaluate", chunks);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    progress.step(0);
    const auto [log_p, targets] = score_chunk(model, text, options.ctx, chunk);
    nll.add(-log_p.gather(1, targets.unsqueeze(1)));
    if (base) comparison.add(base->log_probabilities(chunk), log_p, targets);
    if (sink) sink(chunk, log_p, targets);
    progress.step(1, fmt::format("perplexity {:.4f}", std::exp(nll.mean())));
  }
  Perplexity result;
  result.chunks = chunks;
  result.tokens = nll.count;
  result.ln_perplexity = nll.mean();
  result.perplexity = std::exp(nll.mean());
  result.stderr_ = nll.standard_error() * result.perplexity;
  if (base) comparison.write(result);
  return result;
}

}  // namespace frugal::eval
