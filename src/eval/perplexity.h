// Perplexity by the protocol of llama-perplexity: the text is cut into chunks of `ctx` tokens, the second half of each is
// scored (positions ctx/2 .. ctx-2 predict the token after them), a tokenizer that begins texts with BOS puts it in place
// of each chunk's first token. Against a base model: paired differences on the same tokens.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nn/model.h"

namespace frugal::eval {

struct EvalText {
  std::string name;  // file name
  std::string hash;  // of the token ids
  std::vector<int32_t> tokens;
  std::optional<int32_t> bos;  // set when chunks begin with it
};

struct PerplexityOptions {
  int64_t ctx = 512;   // >= 8
  int64_t chunks = 0;  // 0: as many as the text has
};

// Log-probabilities of one model at the scored positions, to compare others with; kept in a file (logits_file.h).
class BaseScores {
 public:
  virtual ~BaseScores() = default;
  virtual int64_t chunks() const = 0;
  virtual int64_t vocab() const = 0;
  virtual at::Tensor log_probabilities(int64_t chunk) const = 0;  // float32 [scored, vocab]
};

struct ScoredChunk {
  at::Tensor log_probabilities;  // float32 [scored, vocab]
  at::Tensor targets;            // int64 [scored]
};
// The scored positions of one chunk.
ScoredChunk score_chunk(const nn::Model& model, const EvalText& text, int64_t ctx, int64_t chunk);

// Called with each chunk's float32 log-probabilities [scored, vocab] and its targets [scored].
using ScoreSink = std::function<void(int64_t chunk, const at::Tensor& log_probabilities, const at::Tensor& targets)>;

struct Perplexity {
  int64_t chunks = 0;
  int64_t tokens = 0;                  // scored
  double ln_perplexity = 0;            // mean negative log-likelihood in nats
  double perplexity = 0, stderr_ = 0;  // standard error over tokens, as llama-perplexity prints it
  // Against a base:
  std::optional<double> ln_ratio, ln_ratio_stderr;                  // mean difference of ln-perplexity; standard error over chunks
  std::optional<double> kl_mean, kl_stderr;                         // KL(base || model), nats; standard error over tokens
  std::optional<double> kl_median, kl_p90, kl_p99, kl_max;          // of the KL over tokens
  std::optional<double> delta_p_mean, delta_p_stderr, delta_p_rms;  // probability of the right token, model minus base
  std::optional<double> top1_agreement;                             // share of positions with the same most likely token
};

// Throws Error{invalid_input} when the text is shorter than one chunk or than options.chunks, or when `base` was scored on
// other chunks or has another vocabulary; Interrupted.
Perplexity evaluate_perplexity(const nn::Model& model, const EvalText& text, const PerplexityOptions& options, const BaseScores* base = nullptr,
                               const ScoreSink& sink = {});

}  // namespace frugal::eval
