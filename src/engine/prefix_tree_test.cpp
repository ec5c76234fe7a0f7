#include "engine/prefix_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/rng.h"
#include "oracle.h"

namespace frugal::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class PrefixTreeTest : public ::testing::Test {
 protected:
  std::vector<int32_t> allocate(int count) {
    std::vector<int32_t> blocks;
    for (int i = 0; i < count; ++i) blocks.push_back(pool.allocate().value());
    return blocks;
  }
  void release(const std::vector<int32_t>& blocks) {
    for (const int32_t block : blocks) pool.release(block);
  }
  nn::BlockPool pool{100};
  PrefixTree tree{pool, 2};
};

TEST_F(PrefixTreeTest, TheLongestBeginningOfFullBlocksIsFoundInItsScopeOnly) {
  const std::vector<int32_t> blocks = allocate(3);
  tree.insert("a", std::vector{1, 2, 3, 4, 5, 6, 7}, blocks);
  EXPECT_THAT(tree.match("a", std::vector{1, 2, 3, 4, 9, 6}), ElementsAre(blocks[0], blocks[1]));
  EXPECT_THAT(tree.match("a", std::vector{1, 2, 3}), ElementsAre(blocks[0]));
  EXPECT_THAT(tree.match("a", std::vector{1}), IsEmpty());
  EXPECT_THAT(tree.match("a", std::vector{2, 1}), IsEmpty());
  EXPECT_THAT(tree.match("b", std::vector{1, 2, 3, 4}), IsEmpty());
  release(blocks);
  EXPECT_EQ(pool.used(), 3);
  EXPECT_EQ(tree.size(), 3);
}

TEST_F(PrefixTreeTest, ABlockThatIsThereAlreadyStaysAndTheOtherOneIsFree) {
  const std::vector<int32_t> first = allocate(2), second = allocate(2);
  tree.insert("", std::vector{1, 2, 3, 4}, first);
  tree.insert("", std::vector{1, 2, 5, 6}, second);
  release(first);
  release(second);
  EXPECT_EQ(pool.used(), 3);
  EXPECT_THAT(tree.match("", std::vector{1, 2, 5, 6}), ElementsAre(first[0], second[1]));
}

TEST_F(PrefixTreeTest, TheLeastRecentlyUsedLeafGoesFirstAndNeverOneInUse) {
  const std::vector<int32_t> a = allocate(2), b = allocate(1), c = allocate(1);
  tree.insert("", std::vector{1, 1, 2, 2}, a);
  tree.insert("", std::vector{3, 3}, b);
  tree.insert("", std::vector{4, 4}, c);
  release(a);
  release(c);  // b is still in use
  tree.match("", std::vector{1, 1, 2, 2});
  EXPECT_TRUE(tree.evict_one());
  EXPECT_EQ(pool.owners(c[0]), 0);
  EXPECT_TRUE(tree.evict_one());
  EXPECT_EQ(pool.owners(a[1]), 0);
  EXPECT_TRUE(tree.evict_one());
  EXPECT_EQ(pool.owners(a[0]), 0);
  EXPECT_FALSE(tree.evict_one());
  release(b);
  EXPECT_TRUE(tree.evict_one());
  EXPECT_EQ(pool.used(), 0);
  EXPECT_THAT(tree.match("", std::vector{3, 3}), IsEmpty());
}

// Against a map from beginnings to blocks.
TEST_F(PrefixTreeTest, RandomInsertionsMatchesAndEvictionsAgreeWithAMap) {
  Rng rng(testing::test_seed());
  std::map<std::vector<int32_t>, int32_t> reference;
  for (int round = 0; round < 3000; ++round) {
    std::vector<int32_t> tokens(static_cast<size_t>(rng.between(1, 12)));
    for (int32_t& token : tokens) token = static_cast<int32_t>(rng.below(2));
    if (rng.below(3) == 0) {
      std::vector<int32_t> blocks;
      for (size_t i = 0; i < tokens.size() / 2; ++i) {
        ASSERT_TRUE(pool.free() > 0 || tree.evict_one());
        // Whatever went is no longer in the map.
        std::erase_if(reference, [&](const auto& entry) { return pool.owners(entry.second) == 0; });
        blocks.push_back(pool.allocate().value());
      }
      tree.insert("", tokens, blocks);
      for (size_t i = 0; i < blocks.size(); ++i)
        reference.emplace(std::vector(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(2 * i + 2)), blocks[i]);
      release(blocks);
    }
    std::vector<int32_t> want;
    for (size_t end = 2; end <= tokens.size(); end += 2) {
      const auto found = reference.find(std::vector(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(end)));
      if (found == reference.end()) break;
      want.push_back(found->second);
    }
    ASSERT_EQ(tree.match("", tokens), want);
    ASSERT_EQ(static_cast<size_t>(tree.size()), reference.size());
    ASSERT_EQ(pool.used(), tree.size());
  }
  tree.clear();
  EXPECT_EQ(pool.used(), 0);
}

}  // namespace
}  // namespace frugal::engine
