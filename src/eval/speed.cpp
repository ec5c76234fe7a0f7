#include "eval/speed.h"

#include <ATen/ATen.h>

#include <cmath>

#include "base/clock.h"
#include "base/progress.h"
#include "base/rng.h"
#include "ops/packed_linear.h"

namespace frugal::eval {
namespace {

std::vector<int32_t> random_prompt(Rng& rng, int64_t count, int64_t vocab) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) token = static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocab)));
  return tokens;
}

void read_prompt(const nn::Model& model, std::span<const int32_t> tokens, int64_t ubatch, nn::SequenceState& state) {
  for (size_t begin = 0; begin < tokens.size(); begin += static_cast<size_t>(ubatch)) {
    const size_t count = std::min(static_cast<size_t>(ubatch), tokens.size() - begin);
    model.forward(nn::Batch::single(tokens.subspan(begin, count), &state), {nn::ForwardOptions::Logits::last});
  }
}

double run_once(const nn::Model& model, const SpeedTest& test, Rng& rng) {
  const auto random_tokens = [&](int64_t count) { return random_prompt(rng, count, model.spec.vocab); };
  std::vector<nn::SequenceState> states(static_cast<size_t>(test.streams), nn::SequenceState(model.spec, test.cache));
  for (nn::SequenceState& state : states) {
    std::vector<int32_t> tokens = model.virtual_ids();
    const std::vector<int32_t> text = random_tokens(test.depth);
    tokens.insert(tokens.end(), text.begin(), text.end());
    read_prompt(model, tokens, test.ubatch, state);
  }
  std::vector<std::vector<int32_t>> prompts;
  for (int64_t i = 0; i < test.streams; ++i) prompts.push_back(random_tokens(test.prompt));
  const Stopwatch watch;
  for (size_t i = 0; i < states.size(); ++i) read_prompt(model, prompts[i], test.ubatch, states[i]);
  for (int64_t i = 0; i < test.generated; ++i) {
    nn::Batch batch{random_tokens(test.streams), {}};
    for (nn::SequenceState& state : states) batch.sequences.push_back({static_cast<int64_t>(batch.sequences.size()), 1, &state});
    model.forward(batch, {nn::ForwardOptions::Logits::last});
  }
  return static_cast<double>(test.streams * (test.prompt + test.generated)) / watch.seconds();
}

}  // namespace

double SpeedResult::mean() const {
  double sum = 0;
  for (const double value : tokens_per_second) sum += value;
  return sum / static_cast<double>(tokens_per_second.size());
}

double SpeedResult::standard_deviation() const {
  if (tokens_per_second.size() < 2) return 0;
  double squares = 0;
  for (const double value : tokens_per_second) squares += (value - mean()) * (value - mean());
  return std::sqrt(squares / static_cast<double>(tokens_per_second.size() - 1));
}

SpeedResult measure_speed(const nn::Model& model, const SpeedTest& test, int repetitions) {
  const c10::InferenceMode inference;
  Rng rng(1);
  SpeedTest warm_up = test;
  warm_up.depth = 0;
  warm_up.prompt = std::min<int64_t>(test.prompt, test.ubatch);
  warm_up.generated = std::min<int64_t>(test.generated, 4);
  run_once(model, warm_up, rng);
  SpeedResult result{test, {}};
  Progress progress(test.name, repetitions);
  for (int i = 0; i < repetitions; ++i) {
    progress.step(0);
    result.tokens_per_second.push_back(run_once(model, test, rng));
    progress.step(1);
  }
  return result;
}

uint64_t bytes_per_decoded_token(const nn::Model& model) {
  // Every weight once; of the embedding only a row.
  uint64_t total = model.head.resident_bytes();
  for (const nn::Block& block : model.blocks) {
    for (const nn::Linear* linear : const_cast<nn::Block&>(block).linears()) total += linear->resident_bytes();
  }
  return total;
}

MultiplyAdds multiply_adds_per_token(const nn::Model& model) {
  // The head is not run for the inner tokens of a prompt.
  MultiplyAdds total;
  for (const nn::Block& block : model.blocks) {
    for (const nn::Linear* linear : const_cast<nn::Block&>(block).linears()) {
      const ops::PackedMatrix* packed = linear->kinds().front()->packed();
      (packed && packed->bits() <= 4 ? total.up_to_4_bits : total.wider) += static_cast<uint64_t>(linear->out_features() * linear->in_features());
    }
  }
  return total;
}

}  // namespace frugal::eval
