// Vectors of many requests at once against each text computed alone.
#include "engine/embedder.h"

#include <gmock/gmock.h>

#include <future>

#include "models/test_tools.h"

namespace frugal::engine {
namespace {

using models::TinyModels;
using Ids = std::vector<int32_t>;

nn::LoadedModel loaded(const std::string& name, nn::Pooling pooling) {
  nn::LoadedModel model = models::Loader().load_any(TinyModels::get().path(name), nn::Execution::packed);
  model.embedding.pooling = pooling;
  model.embedding.max_tokens = 100'000;
  return model;
}

std::vector<Ids> random_texts(size_t count, int64_t longest, int64_t vocabulary) {
  std::mt19937 random(testing::test_seed());
  std::vector<Ids> texts(count);
  for (Ids& text : texts) {
    const auto length = 1 + random() % static_cast<uint64_t>(longest);
    for (uint64_t i = 0; i < length; ++i) text.push_back(static_cast<int32_t>(random() % static_cast<uint64_t>(vocabulary)));
  }
  return texts;
}

// What a request comes to: vectors, or the text of an error.
struct Outcome {
  Embedded result;
  std::string error;
};

std::future<Outcome> ask(
    Embedder& embedder, const std::vector<Ids>& texts, std::function<bool()> wanted = [] { return true; }) {
  const auto promise = std::make_shared<std::promise<Outcome>>();
  EmbedRequest request;
  for (const Ids& text : texts) request.texts.push_back({text});
  request.wanted = std::move(wanted);
  request.done = [promise](Embedded result) { promise->set_value({std::move(result), ""}); };
  request.failed = [promise](const Error& error) { promise->set_value({{}, error.what()}); };
  embedder.submit(std::move(request));
  return promise->get_future();
}

at::Tensor vectors_of(const Embedded& result) { return at::tensor(at::ArrayRef<float>(result.values)).view({-1, static_cast<int64_t>(result.width)}); }

// From the model's own states of one whole text, which load_test compares with transformers.
at::Tensor reference(const nn::LoadedModel& model, const Ids& text) {
  const c10::InferenceMode inference;
  const at::Tensor hidden = model.model->forward(nn::Batch::single(text, nullptr), {nn::ForwardOptions::Logits::none}).hidden;
  const at::Tensor vector = model.embedding.pooling == nn::Pooling::mean  ? hidden.mean(0)
                            : model.embedding.pooling == nn::Pooling::cls ? hidden[0]
                                                                          : hidden[-1];
  return vector / vector.norm();
}

TEST(Embedder, TextsShortAndLongOfManyRequestsAreAsEachAlone) {
  for (const nn::Pooling pooling : {nn::Pooling::last, nn::Pooling::mean, nn::Pooling::cls}) {
    const nn::LoadedModel model = loaded("qwen3", pooling);
    const std::vector<Ids> texts = random_texts(40, 700, model.model->spec.vocab);  // a chunk has 256 tokens
    Embedder embedder(model);
    std::vector<std::future<Outcome>> answers;
    for (size_t i = 0; i < texts.size(); i += 4)
      answers.push_back(ask(embedder, {texts.begin() + static_cast<long>(i), texts.begin() + static_cast<long>(i) + 4}));
    int64_t tokens = 0;
    double worst = 0;
    for (size_t i = 0; i < answers.size(); ++i) {
      ASSERT_EQ(answers[i].wait_for(std::chrono::minutes(5)), std::future_status::ready);
      const Outcome outcome = answers[i].get();
      ASSERT_EQ(outcome.error, "");
      for (size_t j = 0; j < 4; ++j) {
        const Ids& text = texts[4 * i + j];
        tokens += std::ssize(text);
        worst = std::max(worst, models::relative_difference(vectors_of(outcome.result)[static_cast<int64_t>(j)], reference(model, text)));
      }
    }
    std::printf("pooling %s: largest relative difference %.1e\n", std::string(nn::to_string(pooling)).c_str(), worst);
    EXPECT_LE(worst, 5e-3);  // long texts keep keys and values in 16 bits
    EXPECT_EQ(embedder.counts().prompt_tokens, tokens);
    EXPECT_EQ(embedder.counts().ended_stop, 10);
    EXPECT_EQ(embedder.counts().scheduler.running, 0);
  }
}

TEST(Embedder, AShortRequestOvertakesALongList) {
  const nn::LoadedModel model = loaded("qwen3", nn::Pooling::last);
  Embedder embedder(model);
  std::vector<Ids> many(4000, Ids(200, 1));
  std::atomic<bool> wanted = true;
  std::future<Outcome> list = ask(embedder, many, [&] { return wanted.load(); });
  EXPECT_EQ(ask(embedder, {{1, 2, 3}}).get().error, "");
  EXPECT_LT(embedder.counts().prompt_tokens, 4000 * 200);
  EXPECT_EQ(embedder.counts().scheduler.running, 1);
  wanted = false;  // its client has left: it ends without an answer
  EXPECT_THROW(list.get(), std::future_error);
  EXPECT_LT(embedder.counts().prompt_tokens, 4000 * 200);
}

TEST(Embedder, WrongTextsAreRefusedAndTooManyRequestsToo) {
  nn::LoadedModel model = loaded("qwen3", nn::Pooling::last);
  model.embedding.max_tokens = 5;
  Embedder embedder(model);
  const auto refusal = [&](const std::vector<Ids>& texts) {
    try {
      ask(embedder, texts).get();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("ok");
  };
  EXPECT_EQ(refusal({{1, 2}}), "ok");
  EXPECT_THAT(refusal({}), ::testing::HasSubstr("no text"));
  EXPECT_THAT(refusal({{1}, {}}), ::testing::HasSubstr("no tokens"));
  EXPECT_THAT(refusal({{1, 2, 3, 4, 5, 6}}), ::testing::HasSubstr("6 tokens, the model takes 5"));
  EXPECT_THAT(refusal({{1, -1}}), ::testing::HasSubstr("token id -1"));
  const std::vector<Ids> many(2000, Ids(5, 1));
  EXPECT_THROW(for (int i = 0; i < 300; ++i) ask(embedder, many), Overloaded);
}

TEST(Embedder, ATextThatCannotBeComputedFailsItsRequestAlone) {
  const io::TemporaryFolder folder;
  io::run_oracle("make_tiny_encoders.py", fmt::format("{} {}", folder.path(), testing::test_seed()));
  nn::LoadedModel model = models::Loader().load_any(folder / "mean", nn::Execution::packed);
  model.embedding.max_tokens = 200;  // more than the model has positions: found out in the middle of a chunk
  Embedder embedder(model);
  std::vector<std::future<Outcome>> good, bad;
  for (int i = 0; i < 20; ++i) {
    good.push_back(ask(embedder, {Ids(30, 1), {1, 2, 3}}));
    bad.push_back(ask(embedder, {{1, 2, 3}, Ids(65, 1), {4, 5}}));
  }
  const at::Tensor first = vectors_of(good[0].get().result);
  for (size_t i = 1; i < good.size(); ++i) EXPECT_TRUE(at::equal(vectors_of(good[i].get().result), first));
  for (std::future<Outcome>& one : bad) EXPECT_THAT(one.get().error, ::testing::HasSubstr("65 tokens, the model has 64 positions"));
  EXPECT_EQ(embedder.counts().ended_error, 20);
  EXPECT_EQ(embedder.counts().ended_stop, 20);
  EXPECT_EQ(embedder.counts().scheduler.running, 0);
}

}  // namespace
}  // namespace frugal::engine
