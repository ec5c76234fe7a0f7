#include "nn/model.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "nn/rope_table.h"
#include "oracle.h"
#include "tiny_model.h"

namespace frugal::nn {
namespace {

using testing::random_tokens;
using testing::relative_error;
using testing::tiny_model;

class ModelTest : public ::testing::TestWithParam<testing::TinyModelOptions> {
 protected:
  void SetUp() override { at::manual_seed(testing::test_seed()); }
};

TEST_P(ModelTest, DecodingStepByStepEqualsReadingAtOnce) {
  const Model model = tiny_model(GetParam());
  const std::vector<int32_t> tokens = random_tokens(150, model.spec.vocab);
  const Tensor want = model.forward(Batch::single(tokens, nullptr)).logits;
  SequenceState state(model.spec);
  std::vector<Tensor> parts;
  for (size_t begin = 0, step = 1; begin < tokens.size(); begin += step, step = step * 2 + 1) {
    step = std::min(step, tokens.size() - begin);
    parts.push_back(model.forward(Batch::single(std::span(tokens).subspan(begin, step), &state)).logits);
  }
  EXPECT_EQ(state.length(), 150);
  EXPECT_LT(relative_error(at::cat(parts, 0), want), 1e-5);
}

TEST_P(ModelTest, SequencesInOneBatchDoNotSeeEachOther) {
  const Model model = tiny_model(GetParam());
  const std::vector<int32_t> a = random_tokens(70, model.spec.vocab), b = random_tokens(9, model.spec.vocab);
  SequenceState state_a(model.spec), state_b(model.spec);
  Batch batch{a, {{0, 70, &state_a}, {70, 9, nullptr}, {79, 9, &state_b}}};
  batch.tokens.insert(batch.tokens.end(), b.begin(), b.end());
  batch.tokens.insert(batch.tokens.end(), b.begin(), b.end());
  const Tensor logits = model.forward(batch).logits;
  const Tensor alone = model.forward(Batch::single(b, nullptr)).logits;
  EXPECT_LT(relative_error(logits.narrow(0, 70, 9), alone), 1e-5);
  EXPECT_LT(relative_error(logits.narrow(0, 79, 9), alone), 1e-5);
  EXPECT_LT(relative_error(logits.narrow(0, 0, 70), model.forward(Batch::single(a, nullptr)).logits), 1e-5);
}

TEST_P(ModelTest, AForkSharesPagesUntilItWritesAndARollbackForgets) {
  const Model model = tiny_model(GetParam());
  const std::vector<int32_t> prompt = random_tokens(100, model.spec.vocab), more = random_tokens(5, model.spec.vocab);
  SequenceState state(model.spec);
  model.forward(Batch::single(prompt, &state));
  SequenceState fork = state.fork();
  EXPECT_EQ(fork.blocks()[0], state.blocks()[0]);
  const Tensor first = model.forward(Batch::single(more, &fork)).logits;
  EXPECT_EQ(fork.blocks()[0], state.blocks()[0]);
  EXPECT_NE(fork.blocks()[1], state.blocks()[1]);
  EXPECT_TRUE(at::equal(model.forward(Batch::single(more, &state)).logits, first));
  state.rollback(100);
  EXPECT_TRUE(at::equal(model.forward(Batch::single(more, &state)).logits, first));
}

TEST_P(ModelTest, AFullCacheRefusesAndLeavesTheStatesAsTheyWere) {
  const Model model = tiny_model(GetParam());
  const auto cache = std::make_shared<KvCache>(model.spec, CacheType::f32, 3);
  SequenceState a(cache), b(cache);
  const std::vector<int32_t> tokens = random_tokens(2 * kPageSize, model.spec.vocab);
  const Tensor want = model.forward(Batch::single(tokens, &a)).logits;
  EXPECT_FALSE(b.reserve(kPageSize + 1));
  EXPECT_THROW(model.forward(Batch::single(tokens, &b)), Error);
  EXPECT_EQ(cache->pool().free(), 1);
  EXPECT_TRUE(b.blocks().empty());
  // A half-full block of two owners needs a copy to be written; with none left, that is refused too.
  a.rollback(kPageSize + 5);
  SequenceState fork = a.fork();
  ASSERT_TRUE(b.reserve(1));
  EXPECT_FALSE(fork.reserve(1));
  b = SequenceState(cache);
  EXPECT_TRUE(fork.reserve(1));
  EXPECT_NE(fork.blocks()[1], a.blocks()[1]);
  fork = SequenceState(cache);
  // What another sequence has computed, from its full blocks.
  b.adopt(a.blocks().first(1));
  EXPECT_EQ(b.length(), kPageSize);
  EXPECT_LT(relative_error(model.forward(Batch::single(std::span(tokens).subspan(kPageSize, 9), &b)).logits[8],
                           model.forward(Batch::single(std::span(tokens).subspan(kPageSize + 5, 4), &a)).logits[3]),
            1e-5);
  EXPECT_LT(relative_error(model.forward(Batch::single(std::span(tokens).subspan(kPageSize + 9, 1), &b)).logits[0], want[kPageSize + 9]), 1e-5);
  a = b = SequenceState(cache);
  EXPECT_EQ(cache->pool().used(), 0);
}

// A page of the first layer, as bytes.
Tensor page_of(const SequenceState& state, ops::CachePart part, size_t index) {
  const ops::CachePages pages = state.pages(0);
  return at::from_blob(pages.page(part, state.blocks()[index]), {pages.layout.page_bytes()}, at::kByte);
}

// The same tokens with a cache of floats and with one of `type`.
struct TwoCaches {
  SequenceState full, rounded;
  double error;  // of the logits, relative
};

TwoCaches with_cache(const Model& model, CacheType type) {
  const std::vector<int32_t> tokens = random_tokens(100, model.spec.vocab);
  TwoCaches caches{SequenceState(model.spec), SequenceState(model.spec, type), 0};
  const Tensor want = model.forward(Batch::single(tokens, &caches.full)).logits;
  caches.error = relative_error(model.forward(Batch::single(tokens, &caches.rounded)).logits, want);
  return caches;
}

TEST_P(ModelTest, ACacheInHalfPrecisionTakesHalfTheBytesAndRoundsKeysAndValuesOnly) {
  auto [full, half, error] = with_cache(tiny_model(GetParam()), CacheType::f16);
  EXPECT_EQ(half.bytes() * 2, full.bytes());
  EXPECT_LT(error, 2e-3);
  EXPECT_GT(error, 1e-6);
  // The entries are those of the other cache, rounded; in the first block, whose input is the same.
  const Tensor floats = page_of(full, ops::CachePart::keys, 0).view(at::kFloat), halves = page_of(half, ops::CachePart::keys, 0).view(at::kHalf);
  EXPECT_TRUE(at::equal(halves, floats.to(at::kHalf)));
  // Of the last page, the entries that are there.
  const ops::CacheLayout layout = full.pages(0).layout;
  const auto values = [&](const SequenceState& state, at::ScalarType type) {
    return page_of(state, ops::CachePart::values, 1).view(type).view({layout.kv_heads, layout.page_size, layout.dim}).narrow(1, 0, 100 - layout.page_size);
  };
  EXPECT_TRUE(at::equal(values(half, at::kHalf), values(full, at::kFloat).to(at::kHalf)));
}

TEST_P(ModelTest, ACacheInEightBitsRoundsEachEntryOfAHeadByItsOwnScale) {
  auto [full, small, error] = with_cache(tiny_model(GetParam()), CacheType::int8);
  EXPECT_LT(small.bytes() * 2, full.bytes());
  EXPECT_LT(error, 5e-2);
  EXPECT_GT(error, 1e-5);
  // Codes times scales against the floats of the first block.
  const ops::CacheLayout layout = small.pages(0).layout;
  const Tensor floats = page_of(full, ops::CachePart::keys, 0).view(at::kFloat).view({layout.kv_heads, layout.dim, layout.page_size});
  const Tensor bytes = page_of(small, ops::CachePart::keys, 0).view({layout.kv_heads, layout.block_bytes()});
  const int64_t codes_bytes = layout.dim * layout.page_size;
  const Tensor codes = bytes.narrow(1, 0, codes_bytes).view(at::kChar).to(at::kFloat).view({layout.kv_heads, layout.dim, layout.page_size});
  const Tensor scales = bytes.narrow(1, codes_bytes, layout.page_size * 4).contiguous().view(at::kFloat).unsqueeze(1);
  EXPECT_TRUE(at::allclose(scales.squeeze(1), floats.abs().amax(1) / 127));
  EXPECT_TRUE(((codes * scales - floats).abs() <= scales * 0.5001).all().item<bool>());
}

TEST_P(ModelTest, ServingBlocksComputeWhatTheirDefinitionDoesToTheBit) {
  Model model = tiny_model(GetParam());
  const auto grouped = [](int64_t rows, int64_t columns) {
    return std::make_shared<GroupedKind>(std::make_shared<formats::GroupedWeight>(testing::random_grouped(rows, columns, 4, 16, true)));
  };
  size_t count = 0;
  for (Block& block : model.blocks) {
    for (Linear* linear : block.linears()) {
      const int64_t out = linear->out_features(), in = linear->in_features();
      // The first block has single packed matrices only; in the others a product of two and a sum are among them.
      const size_t way = &block == &model.blocks.front() ? 0 : count++ % 3;
      if (way == 0) linear->replace(grouped(out, in));
      if (way == 1) linear->replace(std::make_shared<LowRankKind>(grouped(16, in), grouped(out, 16)));
      if (way == 2) linear->replace({grouped(out, in), grouped(out, in)});
    }
  }
  model.set_execution(Execution::packed);
  const std::vector<int32_t> a = random_tokens(70, model.spec.vocab), b = random_tokens(9, model.spec.vocab);
  // Two sequences with a state, one without, all in one batch; then a token more for each of the two.
  const SequenceState empty(model.spec, CacheType::f16);
  SequenceState states[2][2] = {{empty, empty}, {empty, empty}};
  for (int step = 0; step < 2; ++step) {
    Tensor results[2];
    for (int way = 0; way < 2; ++way) {
      Batch batch;
      if (step == 0) {
        batch = {a, {{0, 70, &states[way][0]}, {70, 9, nullptr}, {79, 9, &states[way][1]}}};
        batch.tokens.insert(batch.tokens.end(), b.begin(), b.end());
        batch.tokens.insert(batch.tokens.end(), b.begin(), b.end());
      } else {
        batch = {{a[0], a[1]}, {{0, 1, &states[way][0]}, {1, 1, &states[way][1]}}};
      }
      if (way == 0) {
        const at::NoGradGuard serving;
        results[way] = model.forward(batch).logits;
        continue;
      }
      const Tensor positions = Model::positions(batch.sequences);
      for (const SequenceSlice& slice : batch.sequences) {
        if (slice.state) ASSERT_TRUE(slice.state->reserve(slice.count));
      }
      Tensor hidden = model.embed(batch.tokens);
      for (const Block& block : model.blocks) hidden = block.forward(hidden, batch.sequences, positions);
      for (const SequenceSlice& slice : batch.sequences) {
        if (slice.state) slice.state->advance(slice.count);
      }
      results[way] = model.logits(model.final_norm.forward(hidden));
    }
    EXPECT_TRUE(at::equal(results[0], results[1])) << step;
  }
}

TEST_P(ModelTest, RowsThatPassSomeBlocksInEachForwardBecomeWhatTheyAreAtOnce) {
  for (const Execution execution : {Execution::stored, Execution::packed}) {
    Model model = tiny_model(GetParam());
    model.set_execution(execution);
    const at::NoGradGuard serving;
    const auto depth = std::ssize(model.blocks);
    const std::vector<int32_t> a = random_tokens(70, model.spec.vocab), b = random_tokens(9, model.spec.vocab), c = random_tokens(8, model.spec.vocab);
    SequenceState one(model.spec), two(model.spec), other(model.spec);
    SequenceState want_one(model.spec), want_two(model.spec), want_other(model.spec);
    const auto alone = [&](std::span<const int32_t> tokens, SequenceState& state) {
      return model.forward(Batch::single(tokens, &state), {ForwardOptions::Logits::last}).logits;
    };
    // To the order of sums of the BLAS; the engine's tests say it to the bit, for packed models.
    const auto same = [](const Tensor& got, const Tensor& want) { return relative_error(got, want) < 1e-5; };
    alone(std::span(a).first(20), one);
    alone(std::span(a).first(20), want_one);
    for (int64_t block = 0; block < depth; ++block) {
      // One token of `other` through all blocks, first; 50 and 9 tokens through one.
      Batch batch{{c[static_cast<size_t>(block)]}, {{0, 1, &other}, {1, 50, &one, 1, block + 1}, {51, 9, &two, 1, block + 1}}};
      batch.tokens.insert(batch.tokens.end(), a.begin() + 20, a.end());
      batch.tokens.insert(batch.tokens.end(), b.begin(), b.end());
      const Tensor logits = model.forward(batch, {ForwardOptions::Logits::chosen}).logits;
      EXPECT_TRUE(same(logits.narrow(0, 0, 1), alone(std::span(c).subspan(static_cast<size_t>(block), 1), want_other)));
      const bool passed = block + 1 == depth;
      ASSERT_EQ(logits.size(0), passed ? 3 : 1);
      EXPECT_EQ(one.length(), passed ? 70 : 20);
      if (!passed) continue;
      EXPECT_TRUE(same(logits.narrow(0, 1, 1), alone(std::span(a).subspan(20), want_one)));
      EXPECT_TRUE(same(logits.narrow(0, 2, 1), alone(b, want_two)));
    }
    // With nobody beside them; and once more after a rollback in the middle.
    two.rollback(0);
    for (int64_t until : {int64_t{1}, depth}) {
      if (until > two.passage.next_block) {
        const ForwardResult result = model.forward({c, {{0, 8, &two, 1, until}}}, {ForwardOptions::Logits::chosen});
        EXPECT_EQ(result.logits.defined(), until == depth);
      }
    }
    want_two.rollback(0);
    alone(c, want_two);
    EXPECT_TRUE(same(alone(b, two), alone(b, want_two)));
    two.rollback(8);
    if (depth > 1) model.forward({b, {{0, 9, &two, 1, 1}}});
    two.rollback(8);
    want_two.rollback(8);
    EXPECT_TRUE(same(alone(c, two), alone(c, want_two)));
  }
}

TEST_P(ModelTest, GradientsFlowToEveryTensorAndAgreeWithFiniteDifferences) {
  Model model = tiny_model(GetParam());
  const std::vector<int32_t> tokens = random_tokens(12, model.spec.vocab);
  const Tensor targets = at::randint(0, model.spec.vocab, {12}, at::kLong);
  const auto loss = [&] { return at::cross_entropy_loss(model.forward(Batch::equal_parts(tokens, 6)).logits, targets); };
  model.for_each_tensor([](const std::string&, Tensor& tensor) { tensor.requires_grad_(); });
  loss().backward();
  model.for_each_tensor([&](const std::string& name, Tensor& tensor) {
    if (name == "model.embed_tokens.weight" && GetParam().tied == false) return;
    ASSERT_TRUE(tensor.grad().defined()) << name;
    const at::NoGradGuard no_grad;
    const Tensor direction = at::randn_like(tensor), original = tensor.clone();
    const auto difference = [&](double step) {
      tensor.copy_(original + step * direction);
      const double above = loss().item<double>();
      tensor.copy_(original - step * direction);
      const double below = loss().item<double>();
      tensor.copy_(original);
      return (above - below) / (2 * step);
    };
    // Richardson's extrapolation: without it the third derivative alone is 3 % of some slopes.
    const double step = 5e-2 / std::sqrt(static_cast<double>(tensor.numel()));
    const double finite = (4 * difference(step / 2) - difference(step)) / 3;
    const double slope = (tensor.grad() * direction).sum().item<double>();
    EXPECT_NEAR(finite, slope, 2e-2 * (std::abs(slope) + 0.05 * tensor.grad().norm().item<double>()) + 2e-3) << name;
  });
}

INSTANTIATE_TEST_SUITE_P(Kinds, ModelTest,
                         ::testing::Values(testing::TinyModelOptions{}, testing::TinyModelOptions{.tied = false, .biases = true},
                                           testing::TinyModelOptions{.heads = 6, .kv_heads = 3, .qk_norm = true, .post_norms = true, .window = 7},
                                           testing::TinyModelOptions{.kv_heads = 5, .sub_norms = true},
                                           testing::TinyModelOptions{.norm_after_add = true, .residual_scale = 1.7},
                                           testing::TinyModelOptions{.tied = false, .norm = NormKind::none, .branch_scales = true}));

TEST(Model, TokensOutsideTheVocabularyAreRefused) {
  const Model model = tiny_model();
  const int32_t bad[] = {1, 61};
  EXPECT_THROW(model.forward(Batch::single(bad, nullptr)), Error);
  EXPECT_THROW(model.forward(Batch{}), Error);
}

TEST(RopeTable, GrowsAndIsSharedByEqualSpecs) {
  RopeSpec spec;
  spec.rotary_dim = 8;
  const auto table = shared_rope_table(spec);
  EXPECT_EQ(table, shared_rope_table(spec));
  table->prepare(10);
  const Tensor before = table->cos().slice(0, 0, 10).clone();
  table->prepare(5000);
  EXPECT_GE(table->cos().size(0), 5000);
  EXPECT_TRUE(at::equal(table->cos().slice(0, 0, 10), before));
}

}  // namespace
}  // namespace frugal::nn
