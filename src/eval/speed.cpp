#include "eval/speed.h"

#include <ATen/ATen.h>

#include <cmath>

#include "base/clock.h"
#include "base/progress.h"
#include "base/rng.h"

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
  nn::SequenceState state(model.spec);
  read_prompt(model, random_prompt(rng, test.depth, model.spec.vocab), test.ubatch, state);
  const std::vector<int32_t> prompt = random_prompt(rng, test.prompt, model.spec.vocab);
  const Stopwatch watch;
  read_prompt(model, prompt, test.ubatch, state);
  for (int64_t i = 0; i < test.generated; ++i) {
    const int32_t token = static_cast<int32_t>(rng.below(static_cast<uint64_t>(model.spec.vocab)));
    model.forward(nn::Batch::single(std::span(&token, 1), &state), {nn::ForwardOptions::Logits::last});
  }
  return static_cast<double>(test.prompt + test.generated) / watch.seconds();
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

uint64_t multiply_adds_per_token(const nn::Model& model) {
  // The head is not run for the inner tokens of a prompt.
  uint64_t total = 0;
  for (const nn::Block& block : model.blocks) {
    for (const nn::Linear* linear : const_cast<nn::Block&>(block).linears()) {
      total += static_cast<uint64_t>(linear->out_features() * linear->in_features());
    }
  }
  return total;
}

}  // namespace frugal::eval
