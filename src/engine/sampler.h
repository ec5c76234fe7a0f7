// From one row of logits to one token: bias, penalties, a chain of truncations and temperature, a draw. The options are
// one table, shared by the CLI, the docs and the server; their defaults are neutral (plain sampling at temperature 1).
// Sources: top-p (Holtzman et al. 2020), typical (Meister et al. 2022), min-p (Nguyen et al. 2024), top-n-sigma (Tang et
// al. 2024), mirostat (Basu et al. 2021), repetition penalty (Keskar et al. 2019); DRY, XTC and dynamic temperature as
// llama.cpp documents them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/options.h"
#include "base/rng.h"

namespace frugal::engine {

enum class SamplerKind { penalties, dry, top_n_sigma, top_k, typical_p, top_p, min_p, xtc, temperature };

// "penalties;dry;top_k;...", ',' is allowed too. Throws Error{invalid_input} for an unknown or doubled name.
std::vector<SamplerKind> parse_samplers(std::string_view text);
// "15043+1,2-0.5,7-inf": token id and bias in -100..100, or -inf to ban. Throws Error{invalid_input}.
std::vector<std::pair<int32_t, float>> parse_logit_bias(std::string_view text);

struct SamplingParams {
  int64_t seed = -1;  // -1: random
  std::vector<SamplerKind> samplers = {SamplerKind::penalties, SamplerKind::dry,   SamplerKind::top_n_sigma, SamplerKind::top_k,      SamplerKind::typical_p,
                                       SamplerKind::top_p,     SamplerKind::min_p, SamplerKind::xtc,         SamplerKind::temperature};
  float temp = 1;  // 0: greedy, the largest logit after bias, penalties and DRY
  float dynatemp_range = 0, dynatemp_exp = 1;
  int32_t top_k = 0;  // <= 0: off
  float top_p = 1, min_p = 0, typical_p = 1;
  float top_n_sigma = -1;  // <= 0: off
  float xtc_probability = 0, xtc_threshold = 0.1f;
  int32_t repeat_last_n = 64;  // tokens that the penalties look back on; -1: all, 0: off
  float repeat_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
  float dry_multiplier = 0, dry_base = 1.75f;
  int32_t dry_allowed_length = 2, dry_penalty_last_n = -1;
  std::vector<int32_t> dry_breakers;  // token ids that no repetition crosses; the caller makes them from texts
  int32_t mirostat = 0;               // 1 or 2: takes the place of the truncations
  float mirostat_lr = 0.1f, mirostat_ent = 5;
  std::vector<std::pair<int32_t, float>> logit_bias;  // -infinity bans
  bool ignore_eos = false;                            // the caller bans the end tokens, whose ids it knows
};

// The range table. Names as llama.cpp spells its flags, without the dashes.
const std::vector<OptionSpec>& sampling_options();
SamplingParams sampling_params(const Options& options);
// The seed itself, or one from the system's entropy for a negative one.
uint64_t resolved_seed(int64_t seed);

// The state of one sequence. Not thread-safe; equal parameters, seed and logits give equal tokens on every machine.
class Sampler {
 public:
  // Throws Error{invalid_input} for a biased id outside 0..vocab_size-1.
  Sampler(SamplingParams params, int64_t vocab_size, uint64_t seed);

  // logits [vocab_size], changed in place (bias and penalties). NaN counts as -infinity. Throws Error{internal} when no
  // logit is left.
  int32_t sample(std::span<float> logits);
  // A token of the sequence, of the prompt as well: what penalties and DRY look back on.
  void accept(int32_t id);

  // A candidate of the chain; the weight is its probability relative to the largest, valid after softmax().
  struct Candidate {
    int32_t id;
    float logit;
    float weight;
  };

 private:
  void apply_bias(std::span<float> logits) const;
  void apply_penalties(std::span<float> logits);
  void apply_dry(std::span<float> logits) const;
  double softmax();  // fills the weights from the logits, returns their sum
  double entropy(double total) const;
  void keep_sum(const std::vector<float>& keys, double target);
  void keep_nucleus();
  void keep_top_k(size_t k);
  void keep_above(float logit);
  void apply(SamplerKind kind);
  void keep_typical();
  void drop_top_choices();
  void scale_temperature();
  int32_t draw();
  int32_t mirostat();

  SamplingParams params_;
  int64_t vocab_size_;
  Rng rng_;
  float mu_;  // mirostat's threshold of surprise, bits
  std::vector<int32_t> history_;
  std::vector<int32_t> counts_;  // by token, in the window of the penalties; empty when they are off
  std::vector<Candidate> candidates_, ranking_;
  float largest_ = 0;  // logit of the most likely candidate, after softmax()
  size_t drawn_ = 0;   // index of the candidate that draw() chose
};

}  // namespace frugal::engine
