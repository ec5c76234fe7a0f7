#include "base/team.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
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

TEST(Team, AHeldTeamDoesTheSameWorkAndEndsWithItsBody) {
  for (const int threads : {1, 2, 3, 7}) {
    set_team_size(threads);
    std::vector<int64_t> sums;
    hold_team([&] {
      EXPECT_EQ(team_size(), threads);
      for (const int64_t count : {0, 1, 2, 5, 1000}) {
        std::vector<std::atomic<int>> visits(static_cast<size_t>(count));
        parallel_for(count, 1, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
        });
        for (const auto& visit : visits) EXPECT_EQ(visit, 1);
      }
      // Many rounds without a pause; each sees what the one before wrote.
      std::vector<int64_t> values(static_cast<size_t>(threads), 0), next = values;
      for (int64_t round = 0; round < 2000; ++round) {
        run_team([&](int member, int members) {
          EXPECT_EQ(members, threads);
          if (round % 500 == 499) std::this_thread::sleep_for(std::chrono::microseconds(member * 200));  // longer than the others spin
          next[static_cast<size_t>(member)] = values[static_cast<size_t>((member + round) % members)] + 1;
        });
        std::swap(values, next);
      }
      sums = values;
      int nested = 0;
      hold_team([&] { nested = team_size(); });
      EXPECT_EQ(nested, threads);
      run_team([&](int, int) { parallel_for(10, 1, [](int64_t begin, int64_t end) { EXPECT_EQ(end - begin, 10); }); });
    });
    EXPECT_EQ(sums, std::vector<int64_t>(static_cast<size_t>(threads), 2000));
  }
}

TEST(Team, AHeldTeamHandsExceptionsToTheBodyAndTheBodysToTheCaller) {
  set_team_size(3);
  for (int i = 0; i < 10; ++i) {
    int caught = 0;
    EXPECT_THROW(hold_team([&] {
                   for (int member = 0; member < 3; ++member) {
                     try {
                       run_team([&](int m, int) {
                         if (m == member) fail(ErrorKind::invalid_input, "from {}", m);
                       });
                     } catch (const Error&) {
                       ++caught;
                     }
                   }
                   run_team([](int, int) {});
                   fail(ErrorKind::io, "from the body");
                 }),
                 Error);
    EXPECT_EQ(caught, 3);
  }
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
