#include "engine/model_sampling.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "engine/sampler.h"
#include "text/tokenizer.h"

namespace frugal::engine {

int64_t sampled_vocab(const nn::LoadedModel& model) { return std::min<int64_t>(model.model->spec.vocab, model.tokenizer->vocab_size()); }

RawOptions sampling_defaults(const nn::LoadedModel& model) {
  // Hugging Face's names for what sampling_options() calls otherwise.
  static const std::vector<std::pair<std::string, std::string>> names = {{"temperature", "temp"},    {"top_k", "top-k"},
                                                                         {"top_p", "top-p"},         {"min_p", "min-p"},
                                                                         {"typical_p", "typical-p"}, {"repetition_penalty", "repeat-penalty"}};
  RawOptions raw;
  const Json& config = model.generation_config;
  if (!config.is_object() || (config.contains("do_sample") && config["do_sample"] == false)) return raw;
  for (const auto& [theirs, ours] : names) {
    const auto it = config.find(theirs);
    if (it == config.end() || it->is_null()) continue;
    try {
      Options("sampling", sampling_options(), {{ours, it->dump()}});
    } catch (const Error& error) {
      fail(ErrorKind::corrupt_file, "{}: generation_config.json: {}: {}", model.name, theirs, error.what());
    }
    raw.emplace_back(ours, it->dump());
  }
  return raw;
}

void require_finite(std::span<const float> logits, const nn::LoadedModel& model) {
  float sum = 0;
  for (const float logit : logits) sum += logit;
  if (!std::isfinite(sum)) {
    fail(ErrorKind::corrupt_file, "{}: the logits are not finite: a weight is broken, or activations overflow", model.name);
  }
}

}  // namespace frugal::engine
