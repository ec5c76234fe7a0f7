#include "train/continuation.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "base/error.h"
#include "base/rng.h"

namespace frugal::train {

using at::Tensor;

namespace {

// A model with what it remembers of each sequence.
struct Reader {
  const nn::Model& model;
  std::vector<nn::SequenceState> states;

  Reader(const nn::Model& from, size_t count) : model(from) {
    for (size_t i = 0; i < count; ++i) states.emplace_back(from.spec, nn::CacheType::f32);
  }

  // The next token's chances after what each sequence of `ids` has read now, [ids, vocab].
  Tensor read(std::span<const size_t> ids, const std::vector<std::span<const int32_t>>& parts, double temperature) {
    nn::Batch batch;
    for (size_t i = 0; i < ids.size(); ++i) {
      const std::vector<int32_t> first = states[ids[i]].length() == 0 ? model.virtual_ids() : std::vector<int32_t>();
      batch.sequences.push_back({std::ssize(batch.tokens), std::ssize(first) + std::ssize(parts[i]), &states[ids[i]]});
      batch.tokens.insert(batch.tokens.end(), first.begin(), first.end());
      batch.tokens.insert(batch.tokens.end(), parts[i].begin(), parts[i].end());
    }
    const Tensor logits = model.forward(batch, {nn::ForwardOptions::Logits::last}).logits;
    return at::softmax(temperature > 0 ? logits / temperature : logits, 1);
  }
};

int32_t draw(std::span<const float> chances, Rng& rng) {
  double total = 0;
  for (const float chance : chances) total += static_cast<double>(chance);
  double left = rng.uniform() * total;
  for (size_t id = 0; id < chances.size(); ++id) {
    left -= static_cast<double>(chances[id]);
    if (left < 0) return static_cast<int32_t>(id);
  }
  return static_cast<int32_t>(std::max_element(chances.begin(), chances.end()) - chances.begin());  // what rounding left over
}

}  // namespace

std::span<const int32_t> prompt_of(const data::Example& example) {
  const auto first = static_cast<size_t>(std::find(example.trained.begin(), example.trained.end(), 1) - example.trained.begin());
  return example.tokens.first(first > 1 ? first : (example.tokens.size() + 1) / 2);
}

std::vector<std::vector<int32_t>> continuations(const nn::Model& model, std::span<const std::span<const int32_t>> prompts, const ContinuationOptions& options,
                                                const nn::Model* mixed, double share) {
  const at::NoGradGuard no_grad;
  std::vector<std::vector<int32_t>> result(prompts.size());
  Reader reader(model, prompts.size());
  std::optional<Reader> second;
  if (mixed) second.emplace(*mixed, prompts.size());
  std::vector<Rng> rngs;
  std::vector<size_t> going;
  std::vector<std::span<const int32_t>> parts;
  for (size_t i = 0; i < prompts.size(); ++i) {
    FRUGAL_ASSERT(!prompts[i].empty());
    rngs.emplace_back(options.seed + 0x9E3779B97F4A7C15 * i);
    if (options.max_new_tokens < 1 || std::ssize(prompts[i]) >= options.longest) continue;
    going.push_back(i);
    parts.push_back(prompts[i]);
  }
  while (!going.empty()) {
    Tensor chances = reader.read(going, parts, options.temperature);
    if (second) {
      const Tensor theirs = second->read(going, parts, options.temperature);
      const int64_t common = std::min(chances.size(1), theirs.size(1));
      chances = chances.narrow(1, 0, common) * (1 - share) + theirs.narrow(1, 0, common) * share;
    }
    std::vector<size_t> still;
    for (size_t k = 0; k < going.size(); ++k) {
      const size_t i = going[k];
      const std::span<const float> row(chances.const_data_ptr<float>() + static_cast<int64_t>(k) * chances.size(1), static_cast<size_t>(chances.size(1)));
      const int32_t token = options.temperature > 0 ? draw(row, rngs[i]) : static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
      result[i].push_back(token);
      const bool ended = std::find(options.end_ids.begin(), options.end_ids.end(), token) != options.end_ids.end();
      const int64_t length = std::ssize(result[i]);
      if (!ended && length < options.max_new_tokens && std::ssize(prompts[i]) + length < options.longest) still.push_back(i);
    }
    going = std::move(still);
    parts.clear();
    for (const size_t i : going) parts.push_back(std::span(result[i]).last(1));
  }
  return result;
}

}  // namespace frugal::train
