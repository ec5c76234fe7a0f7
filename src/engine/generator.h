// One sequence after another on one model: what `generate` and `chat` run on. (The server's engine batches many.)
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/sampler.h"
#include "nn/loader.h"

namespace frugal::engine {

struct GenerateOptions {
  int64_t max_tokens = -1;             // -1: until the end or the context is full
  std::vector<std::string> stop = {};  // the text ends before the first of these
  bool show_special = false;           // special tokens as text
  int64_t context = 0;                 // most tokens in the state; 0: the model's
  int64_t batch = 512;                 // prompt tokens of one forward
};

enum class FinishReason { stop, length, interrupted };

struct GenerateResult {
  std::vector<int32_t> ids;  // generated, the end token included
  std::string text;
  FinishReason reason = FinishReason::stop;
  int64_t prompt_tokens = 0, reused_tokens = 0;
  double prompt_seconds = 0, decode_seconds = 0;
};

// Keeps the state of the last call: a prompt that begins with what is in it is not read again. Not thread-safe.
class Conversation {
 public:
  explicit Conversation(const nn::LoadedModel& loaded, nn::CacheType cache = nn::CacheType::f16) : loaded_(loaded), state_(loaded.model->spec, cache) {}

  // `on_text` gets complete UTF-8 as it becomes certain. Ends early, with reason interrupted, after request_stop().
  // The sampler is one over sampled_vocab() tokens. Throws Error{invalid_input} with both numbers when the prompt does not fit the context.
  GenerateResult generate(std::span<const int32_t> prompt, Sampler& sampler, const GenerateOptions& options,
                          const std::function<void(const std::string&)>& on_text);

 private:
  at::Tensor read(std::span<const int32_t> tokens, int64_t batch);
  const nn::LoadedModel& loaded_;
  nn::SequenceState state_;
  std::vector<int32_t> history_;  // tokens whose keys are in the state
};

}  // namespace frugal::engine
