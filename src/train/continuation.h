// What a model goes on with after some tokens, while it is being trained: sampled token by token from the weights as they are.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/dataset.h"
#include "nn/model.h"

namespace frugal::train {

// What a model is asked by an example: all before the first answer; of a text, which is learned from its beginning, the first half.
std::span<const int32_t> prompt_of(const data::Example& example);

struct ContinuationOptions {
  int64_t max_new_tokens = 128;
  int64_t longest = 2048;        // tokens of prompt and continuation together
  double temperature = 1;        // 0: the likeliest token
  std::vector<int32_t> end_ids;  // end a continuation, and are its last token
  uint64_t seed = 0;
};

// One for each prompt, which has at least one token; they may be empty when a prompt is as long as it may be. Each is a function of its prompt, its
// index and the seed. With `mixed`, tokens are drawn from share * mixed + (1 - share) * model (arXiv 2306.08543, teacher-mixed sampling).
// Between blocks is a stop point (base/progress.h).
std::vector<std::vector<int32_t>> continuations(const nn::Model& model, std::span<const std::span<const int32_t>> prompts, const ContinuationOptions& options,
                                                const nn::Model* mixed = nullptr, double share = 0);

}  // namespace frugal::train
