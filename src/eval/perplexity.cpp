#include "eval/perplexity.h"

#include <ATen/ATen.h>

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

}  // namespace

ScoredChunk score_chunk(const nn::Model& model, const EvalText& text, int64_t ctx, int64_t chunk) {
  const int64_t first = ctx / 2, scored = ctx - 1 - first;
  std::vector<int32_t> tokens(text.tokens.begin() + chunk * ctx, text.tokens.begin() + (chunk + 1) * ctx);
  const at::Tensor targets = at::tensor(at::ArrayRef<int32_t>(tokens), at::kInt).narrow(0, first + 1, scored).to(at::kLong);
  if (text.bos) tokens[0] = *text.bos;
  const nn::ForwardResult result = model.forward(nn::Batch::single(tokens, nullptr), {nn::ForwardOptions::Logits::none});
  return {at::log_softmax(model.logits(result.hidden.narrow(0, first, scored)), -1), targets};
}

Perplexity evaluate_perplexity(const nn::Model& model, const EvalText& text, const PerplexityOptions& options, const BaseScores* base,
                               const ScoreSink& sink) {
  const c10::InferenceMode inference;
  const int64_t chunks = chunk_count(text, options);
  if (base && base->chunks() != chunks) {
    fail(ErrorKind::invalid_input, "the base was scored on {} chunks, this run has {}", base->chunks(), chunks);
  }
  if (base && base->vocab() != model.spec.vocab) {
    fail(ErrorKind::invalid_input, "the base has a vocabulary of {} tokens, this model of {}: they cannot be compared", base->vocab(), model.spec.vocab);
  }
  Mean nll, difference, kl;
  int64_t agreed = 0;
  Progress progress("evaluate", chunks);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    progress.step(0);
    const auto [log_p, targets] = score_chunk(model, text, options.ctx, chunk);
    const at::Tensor losses = -log_p.gather(1, targets.unsqueeze(1)).squeeze(1);
    nll.add(losses);
    if (base) {
      const at::Tensor base_log_p = base->log_probabilities(chunk);
      const at::Tensor base_losses = -base_log_p.gather(1, targets.unsqueeze(1)).squeeze(1);
      difference.add((losses - base_losses).to(at::kDouble).mean().item<double>());
      kl.add((base_log_p.exp() * (base_log_p - log_p)).sum(-1));
      agreed += base_log_p.argmax(-1).eq(log_p.argmax(-1)).sum().item<int64_t>();
    }
    if (sink) sink(chunk, log_p, targets);
    progress.step(1, fmt::format("perplexity {:.4f}", std::exp(nll.mean())));
  }
  Perplexity result;
  result.chunks = chunks;
  result.tokens = nll.count;
  result.ln_perplexity = nll.mean();
  result.perplexity = std::exp(nll.mean());
  result.stderr_ = nll.standard_error() * result.perplexity;
  if (base) {
    result.ln_ratio = difference.mean();
    result.ln_ratio_stderr = difference.standard_error();
    result.kl_mean = kl.mean();
    result.kl_stderr = kl.standard_error();
    result.top1_agreement = static_cast<double>(agreed) / static_cast<double>(nll.count);
  }
  return result;
}

}  // namespace frugal::eval
