// A conversation that is stopped at any moment goes on as if it had not been.
#include "engine/generator.h"

#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <thread>

#include "base/progress.h"
#include "models/loader.h"
#include "oracle.h"
#include "text/tokenizer.h"

namespace frugal::engine {
namespace {

const nn::LoadedModel& smollm2() {
  static const nn::LoadedModel loaded = [] {
    nn::LoadedModel model = models::Loader().load(testing::smollm2_path());
    model.model->set_execution(nn::Execution::packed);
    return model;
  }();
  return loaded;
}

GenerateResult answer(
    Conversation& conversation, const std::vector<int32_t>& prompt, const std::function<void(const std::string&)>& on_text = [](const std::string&) {}) {
  Sampler greedy(sampling_params(Options("sampling", sampling_options(), {{"temp", "0"}})), smollm2().model->spec.vocab, 0);
  return conversation.generate(prompt, greedy, {.max_tokens = 12}, on_text);
}

TEST(Conversation, StoppedAtAnyMomentItGoesOnAsIfItHadNotBeen) {
  std::string text = "Once upon a time there was a number.";
  for (int i = 0; i < 150; ++i) text += fmt::format(" It was {}.", i);
  const std::vector<int32_t> prompt = smollm2().tokenizer->encode(text);
  ASSERT_GT(prompt.size(), 600u);
  Conversation fresh(smollm2());
  const GenerateResult expected = answer(fresh, prompt);
  ASSERT_EQ(expected.ids.size(), 12u);
  std::mt19937 random(testing::test_seed());
  const auto milliseconds = [](const GenerateResult& result) { return static_cast<unsigned>(1000 * (result.prompt_seconds + result.decode_seconds)) + 1; };
  unsigned whole = milliseconds(expected);
  Conversation conversation(smollm2());
  int stopped = 0;
  for (int i = 0; stopped < 6 && i < 40; ++i) {
    std::thread stopper([wait = random() % whole] {
      std::this_thread::sleep_for(std::chrono::milliseconds(wait));
      request_stop();
    });
    const GenerateResult partial = answer(conversation, prompt);
    stopper.join();
    clear_stop();
    if (partial.reason == FinishReason::interrupted)
      ++stopped;
    else
      whole = milliseconds(partial);  // the rest of a prompt that is in the cache in part, on a machine that may be busier or less
    EXPECT_TRUE(std::equal(partial.ids.begin(), partial.ids.end(), expected.ids.begin()));
  }
  EXPECT_EQ(stopped, 6);
  EXPECT_EQ(answer(conversation, prompt).ids, expected.ids);
}

TEST(Conversation, AStopEndsTheAnswerWithWhatWasSaid) {
  Conversation conversation(smollm2());
  const std::vector<int32_t> prompt = smollm2().tokenizer->encode("The capital of France is");
  const GenerateResult stopped = answer(conversation, prompt, [](const std::string&) { request_stop(); });
  EXPECT_EQ(stopped.reason, FinishReason::interrupted);
  EXPECT_EQ(stopped.ids.size(), 1u);
  EXPECT_FALSE(stopped.text.empty());
  clear_stop();
}

}  // namespace
}  // namespace frugal::engine
