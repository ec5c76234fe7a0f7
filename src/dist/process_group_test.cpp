// Ranks are threads here, each with a group of its own: Gloo does not know the difference. Ranks that are processes: tests/test_dist.py.
#include "dist/process_group.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <future>

#include "base/error.h"
#include "dist/test_ranks.h"

namespace frugal::dist {
namespace {

using namespace std::chrono_literals;

TEST(ProcessGroup, SumsAreEqualToTheBitOnAllRanks) {
  for (const int size : {2, 3, 4}) {
    const at::Tensor numbers = at::randn({size, 1001});
    std::vector<at::Tensor> sums(static_cast<size_t>(size));
    on_ranks(size, [&](ProcessGroup& group) {
      at::Tensor mine = numbers[group.rank()].clone();
      group.all_reduce(mine)->wait();
      sums[static_cast<size_t>(group.rank())] = mine;
    });
    for (const at::Tensor& sum : sums) {
      EXPECT_TRUE(at::equal(sum, sums.front()));
      EXPECT_TRUE(at::allclose(sum, numbers.sum(0), 1e-5, 1e-5));
    }
  }
}

TEST(ProcessGroup, ReducesToOneAndBroadcastsFromOne) {
  on_ranks(3, [&](ProcessGroup& group) {
    at::Tensor mine = at::full({5}, group.rank() + 1.0);
    group.reduce(mine, 2)->wait();
    if (group.rank() == 2) {
      EXPECT_TRUE(at::equal(mine, at::full({5}, 6.0)));
    }
    at::Tensor told = at::full({2, 3}, group.rank(), at::kLong);
    group.broadcast(told, 1)->wait();
    EXPECT_TRUE(at::equal(told, at::ones({2, 3}, at::kLong)));
  });
}

TEST(ProcessGroup, GroupsOfSomeRanksSumByThemselves) {
  on_ranks(4, [&](ProcessGroup& world) {
    const int rank = world.rank();
    const auto row = world.subgroup({rank / 2 * 2, rank / 2 * 2 + 1}), column = world.subgroup({rank % 2 + 2, rank % 2}), alone = world.subgroup({rank});
    at::Tensor all = at::full({3}, rank), in_row = all.clone(), in_column = all.clone(), by_itself = all.clone();
    const auto pending = world.all_reduce(all);
    column->all_reduce(in_column)->wait();
    row->all_reduce(in_row)->wait();
    alone->all_reduce(by_itself)->wait();
    pending->wait();
    EXPECT_EQ(all[0].item<int>(), 6);
    EXPECT_EQ(in_row[1].item<int>(), rank / 2 * 4 + 1);
    EXPECT_EQ(in_column[2].item<int>(), rank % 2 * 2 + 2);
    EXPECT_EQ(by_itself[0].item<int>(), rank);
    EXPECT_EQ(column->rank(), 1 - rank / 2) << "in the order given";
    const auto again = world.subgroup({rank / 2 * 2, rank / 2 * 2 + 1});
    at::Tensor here = at::ones({1}), there = at::ones({1});
    const auto before = again->all_reduce(here);
    row->all_reduce(there)->wait();
    before->wait();
    EXPECT_EQ((here + there).item<int>(), 4) << "two groups of the same";
  });
}

TEST(ProcessGroup, MessagesBothWaysDoNotWaitForEachOther) {
  on_ranks(2, [&](ProcessGroup& group) {
    constexpr int64_t kLarge = 4 << 20;  // more than a socket holds
    std::vector<std::unique_ptr<Pending>> pending;
    for (int i = 0; i < 3; ++i) pending.push_back(group.send(at::full({kLarge}, 10 * group.rank() + i), 1 - group.rank()));
    for (int i = 0; i < 3; ++i) {
      const at::Tensor got = at::empty({kLarge}, at::kLong);
      group.receive(got, 1 - group.rank());
      EXPECT_EQ(got[kLarge - 1].item<int64_t>(), 10 * (1 - group.rank()) + i);
    }
    for (const auto& each : pending) each->wait();
  });
}

TEST(ProcessGroup, SeveralOperationsGoOnAtOnce) {
  on_ranks(2, [&](ProcessGroup& group) {
    std::vector<at::Tensor> tensors;
    std::vector<std::unique_ptr<Pending>> pending;
    for (int i = 0; i < 20; ++i) {
      tensors.push_back(at::full({1000}, i + group.rank()));
      pending.push_back(i % 2 ? group.all_reduce(tensors.back()) : group.reduce(tensors.back(), 0));
    }
    for (auto& each : pending) each->wait();
    for (int i = group.rank(); i < 20; i += 1 + group.rank()) {
      EXPECT_EQ(tensors[static_cast<size_t>(i)][999].item<int64_t>(), 2 * i + 1) << i;
    }
  });
}

TEST(ProcessGroup, TextsOfAllLengths) {
  on_ranks(3, [&](ProcessGroup& group) {
    const auto text = [](int rank) {
      return std::string(static_cast<size_t>(1000 * rank), static_cast<char>('a' + rank)) + (rank ? std::string("\0\xff", 2) : "");
    };
    const auto texts = group.all_gather(text(group.rank()));
    ASSERT_EQ(texts.size(), 3u);
    for (int rank = 0; rank < 3; ++rank) EXPECT_EQ(texts[static_cast<size_t>(rank)], text(rank));
    for (const std::string& none : group.all_gather("")) EXPECT_EQ(none, "");
  });
}

TEST(ProcessGroup, SendsFromOneToAnother) {
  on_ranks(2, [&](ProcessGroup& group) {
    at::Tensor tensor = group.leads() ? at::arange(7) : at::zeros({7}, at::kLong);
    if (group.leads())
      group.send(tensor, 1)->wait();
    else
      group.receive(tensor, 0);
    EXPECT_TRUE(at::equal(tensor, at::arange(7)));
  });
}

TEST(ProcessGroup, ARankThatLeftIsAnErrorAtOnce) {
  std::string problem;
  const uint16_t port = free_port();
  const auto rank = [&](int r) { return Launch{.rank = r, .size = 2, .local_rank = r, .local_size = 2, .address = "127.0.0.1", .port = port}; };
  auto other = std::async(std::launch::async, [&] { connect(rank(1), quick()); });
  const auto group = connect(rank(0), quick([](const std::string&) {}));
  other.get();
  at::Tensor tensor = at::ones({100'000});
  try {
    group->all_reduce(tensor)->wait();
    FAIL() << "rank 1 has left";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::io);
    EXPECT_NE(std::string(error.what()).find("all-reduce"), std::string::npos) << error.what();
  }
}

TEST(ProcessGroup, ARankThatIsNotHeardOfIsReported) {
  std::promise<std::string> told;
  GroupOptions listening = quick([&](const std::string& what) { told.set_value(what); });
  listening.lost_after = 2s;
  const uint16_t port = free_port();
  const auto rank = [&](int r) { return Launch{.rank = r, .size = 2, .local_rank = r, .local_size = 2, .address = "127.0.0.1", .port = port}; };
  auto silent = std::async(std::launch::async, [&] { connect(rank(1), quick()); });  // its heart stops
  const auto group = connect(rank(0), listening);
  auto problem = told.get_future();
  ASSERT_EQ(problem.wait_for(15s), std::future_status::ready);
  EXPECT_NE(problem.get().find("rank 1 was not heard of for 2 s"), std::string::npos);
}

TEST(ProcessGroup, RanksThatDoNotComeAreAnError) {
  GroupOptions options = quick();
  options.connect_timeout = 500ms;
  EXPECT_THROW(connect({.rank = 0, .size = 2, .local_rank = 0, .local_size = 2, .address = "127.0.0.1", .port = free_port()}, options), Error);
}

}  // namespace
}  // namespace frugal::dist
