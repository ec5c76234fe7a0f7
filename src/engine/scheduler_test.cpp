// The scheduler with a model that is none: it writes each token into the cache, and reads it back where a real one would attend to it.
#include "engine/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/rng.h"
#include "oracle.h"

namespace frugal::engine {
namespace {

using nn::kPageSize;

nn::ModelSpec one_number_per_position() {
  nn::ModelSpec spec;
  nn::BlockSpec block;
  block.kv_heads = block.head_dim = 1;
  spec.blocks = {block};
  return spec;
}

class Simulation {
 public:
  Simulation(int32_t blocks, const SchedulerOptions& options)
      : cache(std::make_shared<nn::KvCache>(one_number_per_position(), nn::CacheType::f32, blocks)), scheduler(cache, options), depth(options.blocks) {
    // All are taken once: the pool knows the owners of blocks that it gave out.
    std::vector<int32_t> all;
    while (const auto block = cache->allocate()) all.push_back(*block);
    for (const int32_t block : all) cache->pool().release(block);
  }

  std::shared_ptr<Sequence> add(std::vector<int32_t> prompt, int64_t generated, std::string scope = {}) {
    auto sequence = std::make_shared<Sequence>();
    sequence->prompt_tokens = std::ssize(prompt);
    sequence->room = sequence->prompt_tokens + generated;
    sequence->tokens = std::move(prompt);
    sequence->scope = std::move(scope);
    scheduler.add(sequence);
    alive.push_back(sequence);
    ++sequences;
    return sequence;
  }

  float& entry(const Sequence& sequence, int64_t position) {
    const ops::CachePages pages = sequence.state->pages(0);
    return reinterpret_cast<float*>(
        pages.page(ops::CachePart::keys, sequence.state->blocks()[static_cast<size_t>(position / kPageSize)]))[position % kPageSize];
  }

  // The next token depends on some that came before, as the cache has them.
  int32_t next_token(const Sequence& sequence) {
    const int64_t length = std::ssize(sequence.tokens);
    int64_t sum = length;
    for (int64_t back : {int64_t{1}, length / 3 + 1, length / 2 + 1, length}) sum += 31 * static_cast<int64_t>(entry(sequence, length - back));
    return static_cast<int32_t>(sum % 97);
  }
  static int32_t right_token(const std::vector<int32_t>& tokens) {
    const int64_t length = std::ssize(tokens);
    int64_t sum = length;
    for (int64_t back : {int64_t{1}, length / 3 + 1, length / 2 + 1, length}) sum += 31 * tokens[static_cast<size_t>(length - back)];
    return static_cast<int32_t>(sum % 97);
  }

  // One step of the engine; what it did, false: nothing.
  bool step(bool fails = false) {
    const std::vector<StepPart> parts = scheduler.plan();
    if (parts.empty()) return false;
    last = parts;
    const auto oldest = std::ranges::min_element(alive, {}, [](const auto& s) { return s->order; });
    // Reading its prompt, the oldest may wait for a chunk of the shortest, and for one that was on its way already.
    const bool advances = std::ranges::any_of(parts, [&](const StepPart& part) { return part.sequence == *oldest; });
    const bool begins = std::ranges::any_of(parts, [](const StepPart& part) { return !part.decodes && part.first_block == 0; });
    if (advances || oldest->get() != waiting_oldest) chunks_of_others = steps_of_others = 0;
    if (!advances && !fails) chunks_of_others += begins, ++steps_of_others;
    waiting_oldest = oldest->get();
    EXPECT_LE(chunks_of_others, 2) << "the oldest waits";
    EXPECT_LE(steps_of_others, 5 * (depth + 1)) << "the oldest waits";
    double work = 0;
    for (const StepPart& part : parts) {
      const Sequence& s = *part.sequence;
      EXPECT_EQ(s.phase, Sequence::Phase::running);
      EXPECT_EQ(part.begin, s.state->length());
      EXPECT_EQ(part.samples, part.begin + part.count == std::ssize(s.tokens));
      EXPECT_EQ(part.first_block, s.state->passage.next_block);
      EXPECT_LT(part.first_block, part.until_block);
      EXPECT_LE(part.until_block, depth);
      if (passes(part)) {
        EXPECT_EQ(part.first_block, parts.back().first_block);
        EXPECT_EQ(part.until_block, parts.back().until_block);
      } else {
        EXPECT_EQ(work, std::round(work)) << "those that pass are the last";
      }
      for (int64_t p = part.begin; p < part.begin + part.count; ++p) {
        EXPECT_EQ(cache->pool().owners(s.state->blocks()[static_cast<size_t>(p / kPageSize)]), 1) << "a block that two may write";
        entry(s, p) = static_cast<float>(s.tokens[static_cast<size_t>(p)]);
      }
      work += static_cast<double>(part.count * (part.until_block - part.first_block)) / static_cast<double>(depth);
    }
    const double seconds = 1e-3 + 1e-4 * work;
    now += seconds;
    if (fails) return true;
    for (const StepPart& part : parts) {
      passed += passes(part);
      if (part.until_block == depth)
        part.sequence->state->advance(part.count);
      else
        part.sequence->state->passage.next_block = part.until_block;
    }
    scheduler.done(parts, seconds);
    for (const StepPart& part : parts) {
      Sequence& s = *part.sequence;
      if (!part.samples || part.until_block < depth) continue;
      const int32_t token = next_token(s);
      EXPECT_EQ(token, right_token(s.tokens)) << "entries of others";
      s.tokens.push_back(token);
      if (std::ssize(s.tokens) >= s.room) end(s);
    }
    return true;
  }

  bool passes(const StepPart& part) const { return part.first_block > 0 || part.until_block < depth; }

  void end(Sequence& sequence) {
    scheduler.remove(sequence);
    std::erase_if(alive, [&](const auto& other) { return other.get() == &sequence; });
  }

  // used + free = all by construction; owners are the sequences and the tree.
  void audit() {
    std::map<int32_t, int32_t> owners;
    for (const auto& sequence : alive) {
      EXPECT_EQ(sequence->state != nullptr, sequence->phase == Sequence::Phase::running);
      if (!sequence->state) continue;
      for (const int32_t block : sequence->state->blocks()) ++owners[block];
    }
    int64_t tree = 0;
    for (int32_t block = 0; block < cache->pool().capacity(); ++block) {
      const int32_t more = cache->pool().owners(block) - owners[block];
      ASSERT_TRUE(more == 0 || more == 1) << "block " << block;
      tree += more;
    }
    const SchedulerCounts counts = scheduler.counts();
    EXPECT_EQ(counts.running + counts.waiting, std::ssize(alive));
    EXPECT_EQ(counts.blocks_in_use + counts.blocks_cached, cache->pool().used());
    EXPECT_GE(tree, counts.blocks_cached);
  }
  std::shared_ptr<nn::KvCache> cache;
  Scheduler scheduler;
  std::vector<std::shared_ptr<Sequence>> alive;
  std::vector<StepPart> last;
  int64_t depth;
  double now = 0;
  int64_t sequences = 0, passed = 0;
  int64_t chunks_of_others = 0, steps_of_others = 0;  // since the oldest advanced
  const Sequence* waiting_oldest = nullptr;
};

std::vector<int32_t> tokens_from(int32_t first, int64_t count) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) tokens[static_cast<size_t>(i)] = static_cast<int32_t>((first + i * 7) % 97);
  return tokens;
}

TEST(Scheduler, ASequenceReadsItsPromptInChunksAndThenDecodes) {
  Simulation simulation(100, {.most_running = 10, .step_tokens = 100});
  simulation.add(tokens_from(0, 250), 3);
  for (const int64_t count : {100, 100, 50, 1, 1}) {
    ASSERT_TRUE(simulation.step());
    ASSERT_EQ(simulation.last.size(), 1u);
    EXPECT_EQ(simulation.last[0].count, count);
  }
  EXPECT_FALSE(simulation.step());
  EXPECT_TRUE(simulation.scheduler.idle());
}

class PromptsBeside : public ::testing::TestWithParam<int64_t> {};

TEST_P(PromptsBeside, DecodingSequencesStretchTheStepByLessThanTwo) {
  Simulation simulation(2000, {.step_tokens = 512, .blocks = GetParam()});
  for (int i = 0; i < 4; ++i) simulation.add(tokens_from(i, 20 + i), 5000);
  for (int i = 0; i < 300; ++i) ASSERT_TRUE(simulation.step());
  const std::shared_ptr<Sequence> prompt = simulation.add(tokens_from(50, 4096), 1);
  const double begin = simulation.now;
  double longest = 0;
  while (std::ssize(prompt->tokens) == 4096) {
    const double before = simulation.now;
    ASSERT_TRUE(simulation.step());
    EXPECT_GE(simulation.last.size(), 4u) << "a decoding sequence is in every step";
    longest = std::max(longest, simulation.now - before);
  }
  // Steps of 1 ms and 0.1 ms a token.
  EXPECT_LE(longest, 2 * (1e-3 + 4 * 1e-4));
  EXPECT_LE(simulation.now - begin, 2 * (8 * 1e-3 + 4096 * 1e-4) * 1.4);
}
INSTANTIATE_TEST_SUITE_P(OfDepth, PromptsBeside, ::testing::Values(1, 2, 7, 30, 61), ::testing::PrintToStringParamName());

TEST(Scheduler, AChunkIsOneSizeHoweverLittleOfItFitsAStep) {
  Simulation simulation(2000, {.step_tokens = 512, .blocks = 30});
  for (int i = 0; i < 4; ++i) simulation.add(tokens_from(i, 20 + i), 5000);
  for (int i = 0; i < 300; ++i) ASSERT_TRUE(simulation.step());
  const std::shared_ptr<Sequence> prompt = simulation.add(tokens_from(50, 4096), 1);
  int64_t chunks = 0;
  while (std::ssize(prompt->tokens) == 4096) {
    ASSERT_TRUE(simulation.step());
    const StepPart& part = simulation.last.back();
    chunks += part.sequence == prompt && part.first_block == 0;
  }
  EXPECT_GE(chunks, 4096 / 144);
  EXPECT_LE(chunks, 4096 / 64 + 2);
}

TEST(Scheduler, AShortPromptDoesNotWaitForAllOfALongOne) {
  for (const bool beside : {false, true}) {
    Simulation simulation(2000, {.step_tokens = 512, .blocks = 30});
    if (beside) simulation.add(tokens_from(9, 20), 5000);
    for (int i = 0; i < 30; ++i) simulation.step();
    const auto first = simulation.add(tokens_from(50, 8000), 3), second = simulation.add(tokens_from(60, 8000), 3);
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(simulation.step());
    const auto short_one = simulation.add(tokens_from(70, 30), 1);
    int64_t read_before = first->state->length();
    while (short_one->phase != Sequence::Phase::gone) ASSERT_TRUE(simulation.step());
    EXPECT_LE(first->state->length() - read_before, 2 * 512) << "two chunks at most";
    // Of two long ones, the first has at least half of the time, and so it goes on.
    while (first->phase != Sequence::Phase::gone) {
      if (simulation.sequences < 300) simulation.add(tokens_from(simulation.sequences % 90, 40), 1);
      ASSERT_TRUE(simulation.step());
    }
    EXPECT_LT(second->state ? second->state->length() : 0, 1024);
    simulation.audit();
  }
}

TEST(Scheduler, WhoSharesABeginningThatIsBeingReadWaitsForIt) {
  Simulation simulation(2000, {.step_tokens = 512});
  const auto first = simulation.add(tokens_from(50, 8 * 512), 3);
  ASSERT_TRUE(simulation.step());
  std::vector<int32_t> tokens = tokens_from(50, 1000);
  tokens.back() = 98;
  const auto second = simulation.add(tokens, 3);
  while (simulation.step()) simulation.audit();
  EXPECT_EQ(second->cached_tokens, 999 / kPageSize * kPageSize);
}

TEST(Scheduler, WhoLeavesAmongTheBlocksTakesNobodyAlong) {
  Simulation simulation(2000, {.step_tokens = 512, .blocks = 30});
  simulation.add(tokens_from(1, 20), 5000);
  for (int i = 0; i < 30; ++i) ASSERT_TRUE(simulation.step());
  const auto leaves = simulation.add(tokens_from(50, 30), 3), stays = simulation.add(tokens_from(60, 31), 3);
  while (!leaves->passing || !stays->passing || stays->state->passage.next_block < 3) ASSERT_TRUE(simulation.step());
  ASSERT_EQ(leaves->state->passage.next_block, stays->state->passage.next_block);
  simulation.end(*leaves);
  ASSERT_TRUE(simulation.step());
  EXPECT_EQ(simulation.last.back().sequence, stays);
  EXPECT_GT(simulation.last.back().first_block, 0);
  while (stays->phase != Sequence::Phase::gone) ASSERT_TRUE(simulation.step());
  simulation.audit();
}

TEST(Scheduler, APromptThatCannotFitIsRefusedWithBothNumbers) {
  Simulation simulation(3, {});
  try {
    simulation.add(tokens_from(0, 3 * kPageSize + 1), 1);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), ::testing::AllOf(::testing::HasSubstr("193"), ::testing::HasSubstr("192")));
  }
  const auto longest = simulation.add(tokens_from(0, 3 * kPageSize), 10);
  EXPECT_EQ(longest->room, 3 * kPageSize);
  EXPECT_TRUE(simulation.step());
}

TEST(Scheduler, ABeginningIsSharedAfterItsStepAndInItsScopeOnly) {
  Simulation simulation(100, {});
  const auto first = simulation.add(tokens_from(0, 3 * kPageSize + 5), 50, "a");
  const auto same_step = simulation.add(tokens_from(0, 3 * kPageSize + 5), 50, "a");
  ASSERT_TRUE(simulation.step());
  EXPECT_EQ(same_step->cached_tokens, 0);
  const auto later = simulation.add(tokens_from(0, 3 * kPageSize + 9), 5, "a"), other = simulation.add(tokens_from(0, 3 * kPageSize + 9), 5, "b");
  const auto exact = simulation.add(tokens_from(0, 2 * kPageSize), 5, "a");
  while (simulation.step()) simulation.audit();
  EXPECT_EQ(later->cached_tokens, 3 * kPageSize);
  EXPECT_EQ(other->cached_tokens, 0);
  EXPECT_EQ(exact->cached_tokens, kPageSize) << "the last token's logits are wanted";
}

TEST(Scheduler, ChoicesOfOneRequestReadTheirPromptOnce) {
  Simulation simulation(100, {});
  const auto first = simulation.add(tokens_from(3, 200), 5);
  std::vector<std::shared_ptr<Sequence>> others;
  for (int i = 0; i < 3; ++i) {
    others.push_back(simulation.add(tokens_from(3, 200), 5));
    others.back()->after = first;
  }
  while (simulation.step()) simulation.audit();
  for (const auto& other : others) EXPECT_EQ(other->cached_tokens, 3 * kPageSize);
}

TEST(Scheduler, WhenBlocksRunOutTheYoungestGivesUpAndAllFinishAsAlone) {
  Simulation simulation(6, {.share_beginnings = false});
  std::vector<std::shared_ptr<Sequence>> sequences;
  for (int i = 0; i < 5; ++i) sequences.push_back(simulation.add(tokens_from(10 * i, 40 + 20 * i), 150));
  while (simulation.step()) simulation.audit();
  EXPECT_GT(simulation.scheduler.counts().preemptions, 0);
  for (size_t i = 0; i < sequences.size(); ++i) {
    std::vector<int32_t> want = tokens_from(static_cast<int32_t>(10 * i), 40 + 20 * static_cast<int64_t>(i));
    while (std::ssize(want) < sequences[i]->room) want.push_back(Simulation::right_token(want));
    EXPECT_EQ(sequences[i]->tokens, want);
  }
  EXPECT_EQ(simulation.cache->pool().used(), 0);
}

// Arrivals, cancels, shared beginnings, several choices, failed steps, a pool that is too small: FRUGAL_SIMULATION_STEPS steps.
TEST(Scheduler, ARandomLifeOfAMillionStepsLosesNothing) {
  const int64_t steps = std::stoll(testing::environment_or("FRUGAL_SIMULATION_STEPS", "1000000"));
  int64_t parts = 0, preemptions = 0, hits = 0, sequences = 0, passed = 0;
  Rng rng(testing::test_seed());
  for (int64_t done = 0; done < steps;) {
    const int64_t most_running = rng.between(1, 24);
    Simulation simulation(static_cast<int32_t>(rng.between(4, 60)), {.most_running = most_running,
                                                                     .step_tokens = most_running + rng.between(1, 300),
                                                                     .blocks = rng.below(3) == 0 ? 1 : rng.between(2, 40),
                                                                     .step_stretch = rng.uniform(1, 3),
                                                                     .share_beginnings = rng.below(4) > 0});
    const double rate = rng.uniform(0.005, 0.1);
    const int64_t longest = simulation.scheduler.capacity();
    const int64_t end = std::min(steps, done + 20000);
    for (; done < end && !::testing::Test::HasFailure(); ++done) {
      if (rng.uniform() < rate && std::ssize(simulation.alive) < 100) {
        std::vector<int32_t> prompt = tokens_from(static_cast<int32_t>(rng.below(3)), rng.between(1, std::min<int64_t>(longest, 400)));
        for (int64_t i = rng.between(0, 5); i > 0; --i) prompt.back() = static_cast<int32_t>(rng.below(97));
        const std::string scope(1, static_cast<char>('a' + rng.below(2)));
        const int64_t generated = rng.between(1, 120);
        const auto first = simulation.add(prompt, generated, scope);
        first->reads_everything = rng.below(10) == 0;
        for (int64_t n = rng.below(6) == 0 ? rng.between(1, 4) : 0; n > 0; --n) simulation.add(prompt, generated, scope)->after = first;
      }
      if (!simulation.alive.empty() && rng.below(50) == 0) simulation.end(*simulation.alive[rng.below(simulation.alive.size())]);
      const bool any = !simulation.alive.empty();
      parts += any ? std::ssize(simulation.last) : 0;
      ASSERT_EQ(simulation.step(rng.below(100) == 0), any) << "something waits and nothing runs";
      if (done % 37 == 0) simulation.audit();
    }
    while (!simulation.alive.empty()) simulation.end(*simulation.alive.back());
    simulation.audit();
    const SchedulerCounts counts = simulation.scheduler.counts();
    EXPECT_EQ(counts.blocks_in_use, 0);
    preemptions += counts.preemptions;
    hits += counts.prefix_hits;
    sequences += simulation.sequences;
    passed += simulation.passed;
    if (::testing::Test::HasFailure()) return;
  }
  std::printf("%lld steps: %lld sequences, %lld parts, %lld through some blocks, %lld preemptions, %lld tokens of beginnings shared\n",
              static_cast<long long>(steps), static_cast<long long>(sequences), static_cast<long long>(parts), static_cast<long long>(passed),
              static_cast<long long>(preemptions), static_cast<long long>(hits));
  EXPECT_GT(passed, 0);
  EXPECT_GT(preemptions, 0);
  EXPECT_GT(hits, 0);
}

}  // namespace
}  // namespace frugal::engine
