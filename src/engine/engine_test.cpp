// Many requests at once against each of them alone.
#include "engine/engine.h"

#include <gmock/gmock.h>

#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <new>
#include <set>

#include "engine/generator.h"
#include "engine/model_sampling.h"
#include "models/test_tools.h"

namespace {
thread_local int64_t until_shortage = 0;  // allocations of this thread, the last of which fails; 0: none does
}  // namespace

void* operator new(size_t bytes) {
  void* const memory = until_shortage > 0 && --until_shortage == 0 ? nullptr : std::malloc(std::max<size_t>(1, bytes));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace frugal::engine {
namespace {

using models::TinyModels;

nn::LoadedModel packed(const std::string& path) {
  nn::LoadedModel loaded = models::Loader().load(path);
  loaded.model->set_execution(nn::Execution::packed);
  return loaded;
}
const nn::LoadedModel& tiny() {
  static const nn::LoadedModel loaded = packed(TinyModels::get().path("qwen3"));
  return loaded;
}

// What one request came to.
class Answer : public Listener {
 public:
  void on_prompt(int64_t, std::vector<TokenInfo> tokens) override { prompt = std::move(tokens); }
  void on_piece(int64_t choice, Piece piece) override {
    const std::lock_guard lock(mutex_);
    text[choice] += piece.text;
    for (TokenInfo& token : piece.tokens) tokens[choice].push_back(std::move(token));
    ++pieces;
  }
  void on_end(int64_t choice, const ChoiceEnd& end) override {
    const std::lock_guard lock(mutex_);
    ends[choice] = end;
    changed_.notify_all();
  }
  void on_error(const Error& e) override {
    const std::lock_guard lock(mutex_);
    error = e.what();
    changed_.notify_all();
  }
  Answer& wait(size_t choices = 1) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::minutes(5), [&] { return ends.size() >= choices || !error.empty(); })) << "no end";
    return *this;
  }
  std::vector<int32_t> ids(int64_t choice = 0) {
    std::vector<int32_t> result;
    for (const TokenInfo& token : tokens[choice]) result.push_back(token.id);
    return result;
  }
  std::vector<TokenInfo> prompt;
  std::map<int64_t, std::string> text;
  std::map<int64_t, std::vector<TokenInfo>> tokens;
  std::map<int64_t, ChoiceEnd> ends;
  std::string error;
  int pieces = 0;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
};

Request greedy(std::vector<int32_t> prompt, int64_t count) {
  Request request;
  request.prompt = std::move(prompt);
  request.sampling.temp = 0;
  request.max_tokens = count;
  request.top_logprobs = 0;
  request.ignore_end = true;
  return request;
}

std::vector<int32_t> random_prompt(Rng& rng, int64_t count) {
  std::vector<int32_t> prompt(static_cast<size_t>(count));
  for (int32_t& id : prompt) id = static_cast<int32_t>(rng.below(300));
  return prompt;
}

uint64_t bytes_of_blocks(const nn::LoadedModel& model, int64_t blocks, nn::CacheType type = nn::CacheType::f16) {
  return static_cast<uint64_t>(nn::KvCache(model.model->spec, type, 0).block_bytes() * blocks);
}

std::shared_ptr<Answer> ask(Engine& engine, Request request) {
  auto answer = std::make_shared<Answer>();
  engine.submit({{std::move(request), answer}});
  return answer;
}

TEST(Engine, AnAnswerIsWhatTheConversationOfOneSays) {
  const nn::LoadedModel loaded = packed(testing::smollm2_path());
  Engine engine(loaded, {});
  for (const char* text : {"The capital of France is", "Once upon a time", "1, 2, 3, 4,"}) {
    const std::vector<int32_t> prompt = loaded.tokenizer->encode(text);
    Conversation conversation(loaded);
    SamplingParams params;
    params.temp = 0;
    Sampler sampler(params, sampled_vocab(loaded), 0);
    const GenerateResult want = conversation.generate(prompt, sampler, {.max_tokens = 24}, [](const std::string&) {});
    Request request = greedy(prompt, 24);
    request.ignore_end = false;
    const auto answer = ask(engine, request);
    answer->wait();
    EXPECT_EQ(answer->ids(), want.ids);
    EXPECT_EQ(answer->text[0], want.text);
    EXPECT_EQ(answer->ends[0].reason == EndReason::stop, want.reason == FinishReason::stop);
    EXPECT_EQ(answer->ends[0].prompt_tokens, std::ssize(prompt));
    EXPECT_EQ(answer->ends[0].generated_tokens, std::ssize(want.ids));
  }
}

// FRUGAL_ENGINE_PROMPTS prompts; alone, among others, with cached beginnings, in a pool that is too small for them.
TEST(Engine, AGreedyAnswerIsTheSameInAnyCompany) {
  const int64_t count = std::stoll(testing::environment_or("FRUGAL_ENGINE_PROMPTS", "600"));
  Rng rng(testing::test_seed());
  std::vector<std::vector<int32_t>> prompts;
  for (int64_t i = 0; i < count; ++i) {
    // Some begin like an earlier one.
    std::vector<int32_t> prompt;
    if (i > 0 && rng.below(3) == 0) {
      const auto& other = prompts[rng.below(prompts.size())];
      prompt.assign(other.begin(), other.begin() + static_cast<std::ptrdiff_t>(rng.below(other.size() + 1)));
    }
    const auto rest = random_prompt(rng, rng.between(1, 70));
    prompt.insert(prompt.end(), rest.begin(), rest.end());
    prompt.resize(std::min<size_t>(prompt.size(), 110));
    prompts.push_back(prompt);
  }
  int64_t passed_in_company = 0;
  const auto answers = [&](const EngineOptions& options, size_t together) {
    Engine engine(tiny(), options);
    std::atomic<int64_t> passing = 0;  // chunks that took several steps
    engine.before_step = [&](const std::vector<StepPart>& parts) { passing += parts.back().until_block < std::ssize(tiny().model->blocks); };
    std::vector<std::shared_ptr<Answer>> running;
    std::vector<std::vector<int32_t>> results;
    for (size_t i = 0; i < prompts.size() || !running.empty();) {
      while (running.size() < together && i < prompts.size()) running.push_back(ask(engine, greedy(prompts[i++], 10)));
      EXPECT_EQ(running.front()->wait().error, "");
      results.push_back(running.front()->ids());
      running.erase(running.begin());
    }
    const EngineCounts counts = engine.counts();
    std::printf("%zu together: %lld steps, %lld tokens of prompts, %lld of them cached, %lld preemptions\n", together, static_cast<long long>(counts.steps),
                static_cast<long long>(counts.prompt_tokens), static_cast<long long>(counts.scheduler.prefix_hits),
                static_cast<long long>(counts.scheduler.preemptions));
    if (together > 1) {
      passed_in_company += passing;
    } else {
      EXPECT_EQ(passing, 0);
    }
    EXPECT_EQ(counts.scheduler.prefix_hits > 0, options.scheduler.share_beginnings);
    EXPECT_EQ(counts.scheduler.preemptions > 0, options.cache_bytes < 1 << 20);
    return results;
  };
  EngineOptions alone, crowd, cached, tight;
  alone.scheduler.share_beginnings = crowd.scheduler.share_beginnings = tight.scheduler.share_beginnings = false;
  tight.cache_bytes = bytes_of_blocks(tiny(), 7);
  ASSERT_LT(tight.cache_bytes, 1u << 20);
  tight.scheduler.step_tokens = 300;
  const auto want = answers(alone, 1);
  EXPECT_EQ(answers(crowd, 32), want);
  EXPECT_EQ(answers(cached, 8), want);
  EXPECT_EQ(answers(tight, 32), want);
  EXPECT_GT(passed_in_company, 0) << "in each of them it depends on when requests come";
}

TEST(Engine, AThrowInAStepEndsOneRequestAndNothingElse) {
  Rng rng(testing::test_seed());
  const std::vector<int32_t> good = random_prompt(rng, 20), bad = random_prompt(rng, 21);
  Engine engine(tiny(), {});
  const std::vector<int32_t> want = ask(engine, greedy(good, 30))->wait().ids();
  engine.before_step = [&](const std::vector<StepPart>& parts) {
    for (const StepPart& part : parts) {
      if (part.sequence->prompt_tokens == 21 && part.begin >= 25) throw std::bad_alloc();
    }
  };
  const auto first = ask(engine, greedy(good, 30)), failing = ask(engine, greedy(bad, 30)), second = ask(engine, greedy(good, 30));
  EXPECT_THAT(failing->wait().error, ::testing::HasSubstr("memory"));
  EXPECT_EQ(first->wait().ids(), want);
  EXPECT_EQ(second->wait().ids(), want);
  EXPECT_EQ(engine.counts().ended_error, 1);
  EXPECT_EQ(engine.counts().scheduler.blocks_in_use, 0);
  EXPECT_EQ(ask(engine, greedy(good, 30))->wait().ids(), want);
}

// FRUGAL_ENGINE_SHORTAGES allocations of the engine's thread, one in each round: in a step, between two, while a prompt is on its way through
// the blocks, while a sequence gives its blocks up for an older one.
TEST(Engine, OneAllocationThatFailsEndsAtMostTheRequestsOfAStepAndLosesNoBlock) {
  const int64_t rounds = std::stoll(testing::environment_or("FRUGAL_ENGINE_SHORTAGES", "100"));
  Rng rng(testing::test_seed());
  EngineOptions options;
  options.cache_bytes = bytes_of_blocks(tiny(), 3);
  std::vector<Request> requests;
  for (const int64_t length : {58, 60, 62, 90}) requests.push_back(greedy(random_prompt(rng, length), 8));
  std::vector<std::vector<int32_t>> want;
  int64_t steps = 0, all = 0, ended = 0;
  const auto together = [&](Engine& engine) {
    std::vector<std::shared_ptr<Answer>> answers;
    for (const Request& request : requests) answers.push_back(ask(engine, request));
    for (const auto& answer : answers) answer->wait();
    return answers;
  };
  {
    Engine engine(tiny(), {});
    for (const Request& request : requests) want.push_back(ask(engine, request)->wait().ids());
  }
  for (int64_t round = 0; round <= rounds; ++round) {
    Engine engine(tiny(), options);
    constexpr int64_t kMuch = int64_t{1} << 40;
    const int64_t countdown = round == 0 ? kMuch : static_cast<int64_t>(rng.below(static_cast<uint64_t>(all))) + 1;
    std::atomic<int64_t> left = 0;
    bool begun = false;
    engine.before_step = [&](const std::vector<StepPart>&) {
      if (!std::exchange(begun, true)) until_shortage = countdown;
      left = until_shortage;
    };
    const auto answers = together(engine);
    for (size_t i = 0; i < answers.size(); ++i) {
      if (answers[i]->error.empty())
        EXPECT_EQ(answers[i]->ids(), want[i]) << "allocation " << countdown;
      else
        ++ended;
    }
    if (round == 0) {
      all = kMuch - left, steps = engine.counts().steps;
      EXPECT_EQ(ended, 0);
      EXPECT_GT(engine.counts().scheduler.preemptions, 0);
    }
    // Each block is there: a sequence that needs all of them runs.
    Request whole = greedy(random_prompt(rng, engine.context() - 1), 1);
    EXPECT_EQ(ask(engine, whole)->wait().error, "") << "allocation " << countdown;
    EXPECT_EQ(engine.counts().scheduler.blocks_in_use, 0) << "allocation " << countdown;
    if (HasFailure()) return;
  }
  std::printf("%lld of %lld allocations in %lld steps failed, %lld requests ended\n", static_cast<long long>(rounds), static_cast<long long>(all),
              static_cast<long long>(steps), static_cast<long long>(ended));
}

TEST(Engine, ACancelledRequestGivesItsBlocksBackAtOnce) {
  Rng rng(testing::test_seed());
  Engine engine(tiny(), {});
  for (int i = 0; i < 50; ++i) {
    const auto answer = std::make_shared<Answer>();
    Request request = greedy(random_prompt(rng, rng.between(1, 60)), -1);
    request.choices = rng.between(1, 3);
    const auto choices = static_cast<size_t>(request.choices);
    const uint64_t id = engine.submit({{request, answer}}).front();
    std::this_thread::sleep_for(std::chrono::microseconds(rng.below(3000)));
    engine.cancel(id);
    answer->wait(choices);
  }
  EXPECT_EQ(ask(engine, greedy({1, 2, 3}, 2))->wait().ids().size(), 2u);
  const EngineCounts counts = engine.counts();
  EXPECT_EQ(counts.scheduler.running + counts.scheduler.waiting, 0);
  EXPECT_EQ(counts.scheduler.blocks_in_use, 0);
  EXPECT_GT(counts.ended_cancelled, 0);
}

TEST(Engine, LogProbabilitiesOfPromptAndAnswerAreThoseOfTheModel) {
  Rng rng(testing::test_seed());
  EngineOptions options;
  options.cache = nn::CacheType::f32;
  options.scheduler.step_tokens = 300;
  Engine engine(tiny(), options);
  Request request = greedy(random_prompt(rng, 100), 5);
  request.prompt_logprobs = true;
  request.top_logprobs = 3;
  const auto answer = ask(engine, request);
  answer->wait();
  std::vector<int32_t> all = request.prompt;
  for (const int32_t id : answer->ids()) all.push_back(id);
  const c10::InferenceMode inference;
  const auto vocabulary = sampled_vocab(tiny());
  const at::Tensor want = at::log_softmax(tiny().model->forward(nn::Batch::single(all, nullptr)).logits.narrow(1, 0, vocabulary), -1);
  ASSERT_EQ(answer->prompt.size(), 100u);
  EXPECT_TRUE(std::isnan(answer->prompt[0].logprob));
  std::vector<TokenInfo> infos = answer->prompt;
  infos.insert(infos.end(), answer->tokens[0].begin(), answer->tokens[0].end());
  ASSERT_EQ(infos.size(), all.size());
  for (size_t i = 1; i < all.size(); ++i) {
    EXPECT_EQ(infos[i].id, all[i]);
    const at::Tensor row = want[static_cast<int64_t>(i) - 1];
    EXPECT_NEAR(infos[i].logprob, row[all[i]].item<double>(), 1e-4);
    const auto [values, ids] = row.topk(3);
    ASSERT_EQ(infos[i].top.size(), 3u);
    for (int k = 0; k < 3; ++k) EXPECT_NEAR(infos[i].top[static_cast<size_t>(k)].second, values[k].item<double>(), 1e-4);
  }
  // The prompt alone.
  request.max_tokens = 0;
  const auto scored = ask(engine, request);
  scored->wait();
  ASSERT_EQ(scored->prompt.size(), 100u);
  EXPECT_EQ(scored->prompt[99].logprob, answer->prompt[99].logprob);
  EXPECT_EQ(scored->ends[0].generated_tokens, 0);
  EXPECT_EQ(scored->tokens[0].size(), 0u);
}

TEST(Engine, EndsAreTheOnesThatWereAskedFor) {
  Rng rng(testing::test_seed());
  Engine engine(tiny(), {});
  const std::vector<int32_t> prompt = random_prompt(rng, 10);
  const auto plain = ask(engine, greedy(prompt, 20));
  const std::vector<int32_t> ids = plain->wait().ids();
  EXPECT_EQ(plain->ends[0].reason, EndReason::length);
  Request request = greedy(prompt, 20);
  request.stop_ids = {ids[6]};
  const auto by_id = ask(engine, request);
  const auto first = std::ranges::find(ids, ids[6]) - ids.begin();
  EXPECT_EQ(std::ssize(by_id->wait().ids()), first + 1);
  EXPECT_EQ(by_id->ends[0].reason, EndReason::stop);
  EXPECT_EQ(by_id->ends[0].stop_id, ids[6]);
  request.min_tokens = 15;
  EXPECT_GE(ask(engine, request)->wait().ids().size(), 15u);
  // The context is the end of what was not bounded.
  EngineOptions small;
  small.context = 30;
  Engine short_engine(tiny(), small);
  const auto full = ask(short_engine, greedy(prompt, -1));
  EXPECT_EQ(full->wait().ids().size(), 20u);
  EXPECT_EQ(full->ends[0].reason, EndReason::length);
}

TEST(Engine, AGrammarBeginsBehindTheTextThatItWaitsFor) {
  const nn::LoadedModel loaded = packed(testing::smollm2_path());
  Engine engine(loaded, {});
  Request request = greedy(loaded.tokenizer->encode("Once upon a time"), 24);
  const std::string plain = ask(engine, request)->wait().text[0];
  const size_t word = plain.find(' ', plain.size() / 3);
  ASSERT_NE(word, std::string::npos);
  const std::string marker = plain.substr(word, plain.find(' ', word + 1) - word);
  const size_t begin = plain.find(marker) + marker.size();
  const auto tokens = std::make_shared<const text::TokenBytes>(*loaded.tokenizer);
  request.grammar = std::make_shared<const text::GrammarMatcher>(text::Grammar::from_regex("[0-9]{7}"), tokens);
  request.grammar_after = marker;
  const auto answer = ask(engine, request);
  EXPECT_EQ(answer->wait().text[0].substr(0, begin), plain.substr(0, begin));
  const std::string rest = answer->text[0].substr(begin);
  EXPECT_EQ(rest.size(), 7u) << answer->text[0];
  EXPECT_EQ(rest.find_first_not_of("0123456789"), std::string::npos) << answer->text[0];
  // Where it never comes, the answer is as long as it may be, without an end.
  request.grammar_after = "text that never comes";
  request.ignore_end = false;
  const auto never = ask(engine, request);
  EXPECT_EQ(never->wait().ends[0].reason, EndReason::length);
  EXPECT_EQ(never->ends[0].generated_tokens, 24);
}

TEST(Engine, ChoicesOfOneRequestDrawTheirOwnTokensAndRepeatWithTheirSeed) {
  Rng rng(testing::test_seed());
  Engine engine(tiny(), {});
  Request request = greedy(random_prompt(rng, 70), 12);
  request.sampling.temp = 1;
  request.sampling.seed = 5;
  request.choices = 4;
  const auto a = ask(engine, request), b = ask(engine, request);
  a->wait(4);
  b->wait(4);
  std::set<std::vector<int32_t>> different;
  for (int64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(a->ids(i), b->ids(i));
    different.insert(a->ids(i));
  }
  EXPECT_GT(different.size(), 1u);
  EXPECT_EQ(a->ends[1].cached_tokens, nn::kPageSize);
}

TEST(Engine, WhatCannotBeIsRefusedBeforeItIsAdmitted) {
  EngineOptions options;
  options.context = 50;
  Engine engine(tiny(), options);
  const auto refused = [&](Request request) {
    try {
      ask(engine, std::move(request));
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("admitted");
  };
  EXPECT_THAT(refused(greedy({}, 1)), ::testing::HasSubstr("no tokens"));
  EXPECT_THAT(refused(greedy({-1}, 1)), ::testing::HasSubstr("outside"));
  EXPECT_THAT(refused(greedy({1 << 30}, 1)), ::testing::HasSubstr("outside"));
  EXPECT_THAT(refused(greedy(std::vector<int32_t>(51, 1), 1)), ::testing::AllOf(::testing::HasSubstr("51"), ::testing::HasSubstr("50")));
  Request biased = greedy({1}, 1);
  biased.sampling.logit_bias = {{1 << 20, 1.0f}};
  EXPECT_THAT(refused(biased), ::testing::HasSubstr("logit-bias"));
  options.most_waiting = 0;
  Engine full(tiny(), options);
  EXPECT_THROW(ask(full, greedy({1}, 1)), Overloaded);
  options.cache_bytes = 10;
  EXPECT_THROW(Engine(tiny(), options), Error);
  EXPECT_EQ(engine.counts().steps, 0);
}

}  // namespace
}  // namespace frugal::engine
