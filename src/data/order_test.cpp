// Orders and batches: properties over sizes, lengths and seeds drawn per run.
#include "data/order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "base/error.h"
#include "base/rng.h"
#include "oracle.h"

namespace frugal::data {
namespace {

Dataset dataset_of(const std::vector<uint64_t>& lengths, bool pairs = false) {
  Dataset dataset;
  for (const uint64_t length : lengths) {
    dataset.tokens.resize(dataset.tokens.size() + length);
    dataset.offsets.push_back(dataset.tokens.size());
  }
  dataset.trained.resize(dataset.tokens.size(), 1);
  dataset.pairs = pairs;
  return dataset;
}

std::vector<uint64_t> random_lengths(Rng& rng, size_t count, uint64_t longest) {
  std::vector<uint64_t> lengths(count);
  for (uint64_t& length : lengths) length = 1 + rng.below(longest);
  return lengths;
}

TEST(Permutation, HasEveryIndexOnce) {
  Rng rng(testing::test_seed());
  std::vector<uint64_t> sizes = {0, 1, 2, 3, 255, 256, 257, 65536, 65537};
  for (int i = 0; i < 20; ++i) sizes.push_back(rng.below(3000));
  for (const uint64_t size : sizes) {
    const Permutation order(size, rng.next(), rng.below(5));
    std::vector<bool> seen(size);
    for (uint64_t i = 0; i < size; ++i) {
      const uint64_t value = order(i);
      ASSERT_LT(value, size);
      ASSERT_FALSE(seen[value]) << size;
      seen[value] = true;
    }
  }
  const Permutation huge(uint64_t{1} << 40, 1, 2);
  EXPECT_NE(huge(0), huge(1));
  EXPECT_LT(huge((uint64_t{1} << 40) - 1), uint64_t{1} << 40);
}

TEST(Permutation, IsOfItsSeedAndEpochAndNothingElse) {
  const auto of = [](uint64_t seed, uint64_t epoch) {
    const Permutation order(1000, seed, epoch);
    std::vector<uint64_t> values(1000);
    for (uint64_t i = 1000; i-- > 0;) values[i] = order(i);
    return values;
  };
  EXPECT_EQ(of(7, 3), of(7, 3));
  std::set<std::vector<uint64_t>> all;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    for (uint64_t epoch = 0; epoch < 10; ++epoch) all.insert(of(seed, epoch));
  }
  EXPECT_EQ(all.size(), 100u);
  // Written down: another machine, compiler or version must resume in the same order.
  const Permutation fixed(10, 42, 1);
  std::vector<uint64_t> values;
  for (uint64_t i = 0; i < 10; ++i) values.push_back(fixed(i));
  EXPECT_EQ(values, (std::vector<uint64_t>{1, 5, 3, 7, 4, 8, 9, 2, 0, 6}));
}

// Over many draws each place holds each value, and each pair of neighbours, equally often: chi-square with its mean and deviation.
TEST(Permutation, IsUniformOverManySeeds) {
  const uint64_t size = 12, draws = 24'000;
  std::vector<double> place(size * size), follows(size * size);
  const uint64_t base = testing::test_seed() * uint64_t{1'000'003};
  for (uint64_t draw = 0; draw < draws; ++draw) {
    const Permutation order(size, base + draw / 4, draw % 4);
    for (uint64_t i = 0; i < size; ++i) {
      ++place[i * size + order(i)];
      if (i > 0) ++follows[order(i - 1) * size + order(i)];
    }
  }
  const auto chi_square = [](const std::vector<double>& counts, double expected, bool diagonal) {
    double sum = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      if (diagonal || i / 12 != i % 12) sum += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
    return sum;
  };
  const double freedom = 11 * 11;
  EXPECT_LT(chi_square(place, draws / 12.0, true), freedom + 6 * std::sqrt(2 * freedom));
  const double pairs = 12 * 11 - 1;
  EXPECT_LT(chi_square(follows, draws / 12.0, false), pairs + 6 * std::sqrt(2 * pairs));
}

void expect_each_once(const std::vector<MicroBatch>& all, uint64_t count) {
  std::vector<uint64_t> ids;
  for (const MicroBatch& batch : all) ids.insert(ids.end(), batch.begin(), batch.end());
  std::ranges::sort(ids);
  std::vector<uint64_t> every(count);
  std::iota(every.begin(), every.end(), uint64_t{0});
  EXPECT_EQ(ids, every);
}

TEST(Batches, HaveEveryExampleOnceAndTheSizeThatWasAsked) {
  Rng rng(testing::test_seed());
  for (int round = 0; round < 30; ++round) {
    const size_t count = 1 + rng.below(500), size = 1 + rng.below(9);
    const bool pairs = round % 3 == 0;
    const Dataset dataset = dataset_of(random_lengths(rng, pairs ? count * 2 : count, 50), pairs);
    const BatchOptions options{.seed = rng.next(), .micro_batch_size = size, .sequence_len = 100};
    const std::vector<MicroBatch> all = batches(dataset, options, 3);
    expect_each_once(all, count);
    for (size_t i = 0; i + 1 < all.size(); ++i) EXPECT_EQ(all[i].size(), size);
    EXPECT_EQ(all.size(), (count + size - 1) / size);
    EXPECT_EQ(all, batches(dataset, options, 3));
    EXPECT_TRUE(count <= 20 || all != batches(dataset, options, 4));
  }
  EXPECT_THROW(batches(dataset_of({1}), {.micro_batch_size = 0}, 0), Error);
  EXPECT_TRUE(batches(dataset_of({}), {}, 0).empty());
}

// What fits into sequences of `most` tokens, by brute force: whether the examples of a micro-batch fit `bins` of them.
bool fits(std::vector<uint64_t> lengths, std::vector<uint64_t> room) {
  if (lengths.empty()) return true;
  const uint64_t length = lengths.back();
  lengths.pop_back();
  std::set<uint64_t> tried;
  for (uint64_t& left : room) {
    if (left < length || !tried.insert(left).second) continue;
    left -= length;
    if (fits(lengths, room)) return true;
    left += length;
  }
  return false;
}

TEST(Batches, PackWholeExamplesIntoSequences) {
  Rng rng(testing::test_seed());
  for (int round = 0; round < 20; ++round) {
    const size_t count = 1 + rng.below(300), size = 1 + rng.below(3);
    const bool pairs = round % 4 == 3;
    const uint64_t most = pairs ? 100 : 50;
    const Dataset dataset = dataset_of(random_lengths(rng, pairs ? count * 2 : count, 50), pairs);
    const BatchOptions options{.seed = rng.next(), .micro_batch_size = size, .sequence_len = most, .sample_packing = true};
    const std::vector<MicroBatch> all = batches(dataset, options, 1);
    expect_each_once(all, count);
    EXPECT_EQ(all, batches(dataset, options, 1));
    for (const MicroBatch& batch : all) {
      std::vector<uint64_t> lengths;
      for (const uint64_t id : batch)
        lengths.push_back(pairs ? dataset.offsets[2 * id + 2] - dataset.offsets[2 * id] : dataset.offsets[id + 1] - dataset.offsets[id]);
      std::ranges::sort(lengths);
      EXPECT_TRUE(fits(lengths, std::vector<uint64_t>(size, most)));
    }
  }
}

TEST(Batches, PackWithLittleRoomLeft) {
  Rng rng(testing::test_seed());
  std::vector<uint64_t> lengths;
  for (int i = 0; i < 5000; ++i) lengths.push_back(std::min<uint64_t>(2048, static_cast<uint64_t>(20 + 200 * std::abs(rng.normal()))));
  const uint64_t tokens = std::accumulate(lengths.begin(), lengths.end(), uint64_t{0});
  const auto all = batches(dataset_of(lengths), {.seed = 1, .micro_batch_size = 1, .sequence_len = 2048, .sample_packing = true}, 0);
  EXPECT_LE(all.size(), static_cast<size_t>(static_cast<double>(tokens) / 2048 / 0.98) + 1);
  // Long and short ones are mixed over the epoch: the first half of the batches does not hold the longest half of the examples.
  uint64_t first = 0, ids = 0;
  for (size_t i = 0; i < all.size() / 2; ++i) {
    for (const uint64_t id : all[i]) first += lengths[id], ++ids;
  }
  EXPECT_NEAR(static_cast<double>(first) / static_cast<double>(ids), static_cast<double>(tokens) / 5000, 25);
}

TEST(Split, SetsAsideAShareOrANumber) {
  Rng rng(testing::test_seed());
  const Dataset dataset = dataset_of(random_lengths(rng, 200, 9));
  for (const auto& [wanted, count] : {std::pair{0.0, 0u}, {0.05, 10u}, {0.001, 1u}, {30.0, 30u}, {1.0, 1u}}) {
    const Split parts = split(dataset, wanted, 5);
    EXPECT_EQ(parts.validation.size(), count) << wanted;
    std::vector<uint64_t> all;
    std::ranges::merge(parts.training, parts.validation, std::back_inserter(all));
    std::vector<uint64_t> every(200);
    std::iota(every.begin(), every.end(), uint64_t{0});
    EXPECT_EQ(all, every);
    EXPECT_EQ(split(dataset, wanted, 5).validation, parts.validation);
  }
  EXPECT_NE(split(dataset, 0.2, 5).validation, split(dataset, 0.2, 6).validation);
  for (const double wrong : {-1.0, 200.0, std::nan("")}) EXPECT_THROW(split(dataset, wrong, 5), Error) << wrong;
}

}  // namespace
}  // namespace frugal::data
