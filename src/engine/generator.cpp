#include "engine/generator.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/clock.h"
#include "base/error.h"
#include "base/progress.h"
#include "engine/model_sampling.h"
#include "engine/stop_matcher.h"
#include "text/tokenizer.h"

namespace frugal::engine {

at::Tensor Conversation::read(std::span<const int32_t> tokens, int64_t batch) {
  at::Tensor logits;
  for (size_t begin = 0; begin < tokens.size(); begin += static_cast<size_t>(batch)) {
    const auto part = tokens.subspan(begin, std::min(static_cast<size_t>(batch), tokens.size() - begin));
    try {
      logits = loaded_.model->forward(nn::Batch::single(part, &state_), {nn::ForwardOptions::Logits::last}).logits;
    } catch (...) {
      state_.rollback(static_cast<int64_t>(history_.size()));
      throw;
    }
    history_.insert(history_.end(), part.begin(), part.end());
  }
  return logits;
}

GenerateResult Conversation::generate(std::span<const int32_t> prompt, Sampler& sampler, const GenerateOptions& options,
                                      const std::function<void(const std::string&)>& on_text) {
  const c10::InferenceMode inference;
  const int64_t context = options.context > 0 ? options.context : loaded_.model->spec.context_length;
  const auto prompt_size = static_cast<int64_t>(prompt.size());
  std::vector<int32_t> wanted = loaded_.model->virtual_ids();
  const auto virtual_tokens = std::ssize(wanted);
  if (prompt.empty()) fail(ErrorKind::invalid_input, "the prompt has no tokens");
  if (virtual_tokens + prompt_size >= context)
    fail(ErrorKind::invalid_input, "the prompt has {} tokens, the context holds {}", prompt_size, context - virtual_tokens);
  wanted.insert(wanted.end(), prompt.begin(), prompt.end());

  GenerateResult result;
  result.prompt_tokens = prompt_size;
  // At least the last prompt token is read again, for its logits.
  const auto same = std::mismatch(history_.begin(), history_.end(), wanted.begin(), wanted.end() - 1).first - history_.begin();
  history_.resize(static_cast<size_t>(same));
  state_.rollback(same);
  result.reused_tokens = std::max<int64_t>(0, same - virtual_tokens);
  Stopwatch watch;
  for (const int32_t id : prompt) sampler.accept(id);
  at::Tensor logits;
  try {
    logits = read(std::span(wanted).subspan(static_cast<size_t>(same)), options.batch);
  } catch (const Interrupted&) {
    result.reason = FinishReason::interrupted;
    return result;
  }
  result.prompt_seconds = watch.seconds();

  const Stopwatch decode;
  text::StreamDecoder decoder(*loaded_.tokenizer, /*skip_special=*/!options.show_special);
  StopMatcher matcher(options.stop);
  const auto emit = [&](const std::string& text) {
    if (text.empty()) return;
    result.text += text;
    on_text(text);
  };
  result.reason = FinishReason::length;
  while (options.max_tokens < 0 || static_cast<int64_t>(result.ids.size()) < options.max_tokens) {
    at::Tensor row = logits[0].narrow(0, 0, sampled_vocab(loaded_)).contiguous();
    const std::span values(row.mutable_data_ptr<float>(), static_cast<size_t>(row.numel()));
    require_finite(values, loaded_);
    const int32_t id = sampler.sample(values);
    sampler.accept(id);
    result.ids.push_back(id);
    const bool ends = std::binary_search(loaded_.end_ids.begin(), loaded_.end_ids.end(), id);
    if (!ends) emit(matcher.push(decoder.push(id)));
    if (ends || matcher.stopped()) {
      result.reason = FinishReason::stop;
      break;
    }
    if (static_cast<int64_t>(history_.size()) + 1 >= context) break;
    try {
      logits = read(std::span(&id, 1), 1);
    } catch (const Interrupted&) {
      result.reason = FinishReason::interrupted;
      break;
    }
  }
  if (!matcher.stopped()) emit(matcher.push(decoder.flush()));
  if (!matcher.stopped()) emit(matcher.flush());
  result.decode_seconds = decode.seconds();
  return result;
}

}  // namespace frugal::engine
