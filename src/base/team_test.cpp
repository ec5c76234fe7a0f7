#include "base/team.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "base/error.h"
#include "base/rng.h"

namespace frugal {
namespace {

TEST(Team, EveryIndexIsVisitedOnceWhateverTheTeamSize) {
  for (const int threads : {1, 2, 3, 7}) {
    set_team_size(threads);
    for (const int64_t count : {0, 1, 2, 5, 1000}) {
      std::vector<std::atomic<int>> visits(static_cast<size_t>(count));
      parallel_for(count, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
      });
      for (const auto& visit : visits) EXPECT_EQ(visit, 1);
    }
  }
}

TEST(Team, AnExceptionInABodyReachesTheCallerAndTheTeamLivesOn) {
  set_team_size(2);
  for (int i = 0; i < 10; ++i) {
    EXPECT_THROW(run_team([](int member, int) { fail(ErrorKind::invalid_input, "from {}", member); }), Error);
  }
  std::atomic<int> members{0};
  run_team([&](int, int) { ++members; });
  EXPECT_EQ(members, 2);
}

TEST(Rng, IsTheSameEverywhereAndUniformInItsBounds) {
  Rng rng(1);
  EXPECT_EQ(rng.next(), 12966619160104079557u);  // xoshiro256** seeded by splitmix64(1), computed with the reference C code
  for (int i = 0; i < 1000; ++i) {
    EXPECT_LT(rng.below(3), 3u);
    const double value = rng.uniform();
    EXPECT_GE(value, 0);
    EXPECT_LT(value, 1);
  }
}

}  // namespace
}  // namespace frugal
