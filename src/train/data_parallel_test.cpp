// Sums of gradients over ranks, which are threads here; whole runs of processes: tests/test_dist.py.
#include "train/data_parallel.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "base/rng.h"
#include "dist/test_ranks.h"

namespace frugal::train {
namespace {

using at::Tensor;

std::vector<Parameter> parameters_of(uint64_t seed) {
  std::vector<Parameter> parameters;
  at::manual_seed(seed);
  for (const auto& [name, shape] :
       std::vector<std::pair<std::string, std::vector<int64_t>>>{{"embed_tokens", {50, 8}}, {"a", {8, 8}}, {"b", {8}}, {"c", {8, 8}}, {"unused", {3}}}) {
    parameters.push_back({name, at::randn(shape).requires_grad_()});
  }
  return parameters;
}

// A tied weight, two uses of a matrix, and a second backward pass where `twice`: gradients that come in another way than before.
void backward(const std::vector<Parameter>& p, const Tensor& input, bool twice) {
  for (int pass = 0; pass <= (twice ? 1 : 0); ++pass) {
    const Tensor hidden = input.matmul(p[0].tensor).matmul(p[1].tensor).add(p[2].tensor).tanh().matmul(p[3].tensor).matmul(p[1].tensor);
    torch::autograd::backward({hidden.matmul(p[0].tensor.t()).pow(2).mean()}, {});
  }
}

struct Micro {
  Tensor input;
  bool twice;
};

std::vector<Tensor> gradients_of(const std::vector<Parameter>& parameters) {
  std::vector<Tensor> gradients;
  for (const Parameter& parameter : parameters) gradients.push_back(parameter.tensor.grad().defined() ? parameter.tensor.grad().clone() : Tensor());
  return gradients;
}

void expect_near(const Tensor& got, const Tensor& want, const std::string& what) {
  ASSERT_EQ(got.defined(), want.defined()) << what;
  if (want.defined()) {
    EXPECT_TRUE(at::allclose(got, want, 0, 1e-5 * want.abs().max().item<double>())) << what << ": " << (got - want).abs().max();
  }
}

TEST(GradientReducer, SumsWhateverOrderGradientsComeIn) {
  for (const int ranks : {2, 3}) {
    for (const bool owned : {false, true}) {
      for (const int64_t bucket_bytes : {int64_t{1}, int64_t{600}, int64_t{1} << 20}) {
        // Steps of several rounds; in the third a rank has nothing to do, in the fourth gradients come twice.
        std::vector<std::vector<Micro>> rounds;
        for (int round = 0; round < 6; ++round) {
          rounds.emplace_back();
          for (int rank = 0; rank < (round == 2 ? ranks - 1 : ranks); ++rank)
            rounds.back().push_back({at::randn({4, 50}), round >= 3 && (round + rank) % 2 == 1});
        }
        std::vector<std::vector<Tensor>> want;
        for (const auto& round : rounds) {
          const std::vector<Parameter> alone = parameters_of(7);
          for (const Micro& micro : round) backward(alone, micro.input, micro.twice);
          want.push_back(gradients_of(alone));
        }
        const std::vector<Parameter> made = parameters_of(7);
        dist::on_ranks(ranks, [&](dist::ProcessGroup& group) {
          std::vector<Parameter> mine;
          for (const Parameter& parameter : made) mine.push_back({parameter.name, parameter.tensor.detach().clone().requires_grad_()});
          const std::vector<int> owners = owned ? owners_of(mine, group.size()) : std::vector<int>();
          GradientReducer reducer(group, mine, owners, bucket_bytes);
          for (size_t round = 0; round < rounds.size(); ++round) {
            reducer.begin();
            if (static_cast<size_t>(group.rank()) < rounds[round].size()) {
              const Micro& micro = rounds[round][static_cast<size_t>(group.rank())];
              backward(mine, micro.input, micro.twice);
            }
            reducer.end();
            for (const Parameter& parameter : mine) EXPECT_FALSE(parameter.tensor.grad().defined()) << "it is in the sums";
            reducer.put_gradients();
            for (size_t i = 0; i < mine.size(); ++i) {
              const bool here = !owned || owners[i] == group.rank();
              expect_near(mine[i].tensor.grad(), here ? want[round][i] : Tensor(), mine[i].name + " of round " + std::to_string(round));
              mine[i].tensor.mutable_grad() = Tensor();
            }
          }
        });
      }
    }
  }
}

TEST(GradientReducer, SumsOfRoundsAddUp) {
  std::vector<Tensor> inputs;
  for (int i = 0; i < 6; ++i) inputs.push_back(at::randn({4, 50}));
  const std::vector<Parameter> alone = parameters_of(7);
  for (const Tensor& input : inputs) backward(alone, input, false);
  const std::vector<Tensor> want = gradients_of(alone);
  dist::on_ranks(2, [&](dist::ProcessGroup& group) {
    for (const Strategy strategy : {Strategy::ddp, Strategy::zero1, Strategy::zero2}) {
      std::vector<Parameter> mine;
      for (const Parameter& parameter : alone) mine.push_back({parameter.name, parameter.tensor.detach().clone().requires_grad_()});
      DataParallel ranks(group, strategy, mine);
      for (int round = 0; round < 3; ++round) {
        ranks.begin_round(round == 2);
        backward(mine, inputs[static_cast<size_t>(2 * round + group.rank())], false);
        ranks.end_round();
      }
      ranks.put_gradients();
      double squares = 0;
      for (const Tensor& gradient : want) squares += gradient.defined() ? gradient.pow(2).sum().item<double>() : 0;
      EXPECT_NEAR(ranks.gradient_norm() / std::sqrt(squares), 1, 1e-5);
      size_t held = 0;
      for (size_t i = 0; i < mine.size(); ++i) {
        if (!mine[i].tensor.grad().defined()) continue;
        ++held;
        expect_near(mine[i].tensor.grad(), want[i], mine[i].name);
      }
      EXPECT_EQ(held, strategy == Strategy::ddp ? 4u : ranks.owned().size() - (group.rank() == 1 ? 1 : 0)) << "all but the unused one, which the last owns";
    }
  });
}

TEST(Owners, EachHasAboutEquallyManyNumbers) {
  std::vector<Parameter> parameters;
  for (int i = 0; i < 40; ++i) parameters.push_back({"p" + std::to_string(i), at::zeros({i % 4 == 0 ? 1000 : 300, 10})});
  for (const int ranks : {1, 2, 3, 4, 7}) {
    const std::vector<int> owners = owners_of(parameters, ranks);
    EXPECT_TRUE(std::is_sorted(owners.begin(), owners.end()));
    std::vector<double> numbers(static_cast<size_t>(ranks));
    double all = 0;
    for (size_t i = 0; i < owners.size(); ++i) {
      numbers.at(static_cast<size_t>(owners[i])) += static_cast<double>(parameters[i].tensor.numel());
      all += static_cast<double>(parameters[i].tensor.numel());
    }
    for (const double each : numbers) EXPECT_NEAR(each, all / ranks, 10'000);  // no more than a tensor off
  }
}

}  // namespace
}  // namespace frugal::train
