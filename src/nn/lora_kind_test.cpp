// Adapter kinds over every kind of base, against the product with their dense weight and the gradients of plain operators.
#include "nn/lora_kind.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tiny_model.h"

namespace frugal::nn {
namespace {

using testing::random_grouped;
using testing::relative_error;

constexpr int64_t kOut = 23, kIn = 64, kRank = 3;

std::shared_ptr<GroupedKind> grouped(int64_t out, int64_t in) {
  return std::make_shared<GroupedKind>(std::make_shared<formats::GroupedWeight>(random_grouped(out, in, 4, 32, false)));
}

std::shared_ptr<LinearKind> block_kind() {
  const formats::Format& format = formats::format_at("Q4_1");
  const Tensor weight = at::randn({kOut, kIn});
  const auto bytes = std::make_shared<std::vector<std::byte>>(formats::bytes_of(format, kOut * kIn));
  format.encode(weight.const_data_ptr<float>(), nullptr, bytes->data(), kOut * kIn);
  return std::make_shared<BlockKind>(format, BlockKind::Source{*bytes, bytes}, kOut, kIn);
}

std::shared_ptr<LinearKind> sparse_kind() {
  Tensor weight = at::randn({kOut, kIn});
  weight.mul_(at::rand({kOut, kIn}) > 0.5);
  return std::make_shared<SparseKind>(std::make_shared<formats::SparseWeight>(formats::make_sparse(weight.const_data_ptr<float>(), kOut, kIn, "F16")));
}

struct Base {
  std::string name;
  std::vector<std::shared_ptr<LinearKind>> kinds;
  double packed_tolerance;  // integer kernels round the activations
};

std::vector<Base> bases() {
  return {{"dense", {std::make_shared<DenseKind>(at::randn({kOut, kIn}))}, 1e-5},
          {"half", {std::make_shared<DenseKind>(at::randn({kOut, kIn}).to(at::kHalf))}, 1e-5},
          {"blocks", {block_kind()}, 1.5e-2},
          {"grouped", {grouped(kOut, kIn)}, 1.5e-2},
          {"sparse", {sparse_kind()}, 1e-5},
          {"low rank", {std::make_shared<LowRankKind>(grouped(32, kIn), grouped(kOut, 32))}, 3e-2},
          {"sum", {grouped(kOut, kIn), sparse_kind()}, 1.5e-2}};
}

struct Adapted {
  std::string name;
  Linear linear;
  std::shared_ptr<AdapterKind> kind;
  Tensor bias;  // of the sum, as it is with the adapter
};

Tensor trained(at::IntArrayRef shape, double mean = 0) { return at::randn(shape).mul_(0.3).add_(mean).requires_grad_(); }

std::vector<Adapted> adapted(const Base& base, const std::shared_ptr<AdapterDropout>& dropout = nullptr) {
  std::vector<Adapted> result;
  const auto add = [&](const std::string& name, std::shared_ptr<AdapterKind> kind, Tensor linear_bias, Tensor bias) {
    Linear linear("m", base.kinds.front(), std::move(linear_bias));
    std::vector<std::shared_ptr<LinearKind>> kinds = base.kinds;
    if (kind->wraps()) kinds.clear();
    kinds.push_back(kind);
    linear.replace(std::move(kinds));
    result.push_back({base.name + " " + name, std::move(linear), std::move(kind), std::move(bias)});
  };
  const Tensor bias = at::randn({kOut});
  add("LoRA", std::make_shared<LoraKind>(trained({kRank, kIn}), trained({kOut, kRank}), 0.7, dropout), bias, bias);
  add("QA-LoRA", std::make_shared<LoraKind>(trained({kRank, kIn / 16}, 1), trained({kOut, kRank}), 0.7, dropout, 16), bias, bias);
  add("AdaLoRA", std::make_shared<AdaLoraKind>(trained({kRank, kIn}), trained({kOut, kRank}), trained({kRank, 1}, 3), 0.7, dropout), bias, bias);
  add("VeRA", std::make_shared<VeraKind>(at::randn({kRank, kIn}), at::randn({kOut, kRank}), trained({kRank}), trained({kOut}), dropout), bias, bias);
  add("DoRA", std::make_shared<DoraKind>(base.kinds, trained({kRank, kIn}), trained({kOut, kRank}), trained({kOut}, 4), 0.7, dropout), bias, bias);
  add("IA3 inputs", std::make_shared<Ia3Kind>(base.kinds, trained({1, kIn}, 1), Ia3Kind::Place::input), bias, bias);
  const auto outputs = std::make_shared<Ia3Kind>(base.kinds, trained({kOut, 1}, 1), Ia3Kind::Place::output, bias);
  add("IA3 outputs", outputs, {}, outputs->merged_bias().detach());
  return result;
}

TEST(LoraKind, AdaptersMultiplyAsTheirDenseWeightOverEveryBase) {
  const at::NoGradGuard no_grad;
  for (const Base& base : bases()) {
    for (Adapted& one : adapted(base)) {
      const Tensor x = at::randn({5, kIn});
      const Tensor want = at::linear(x, one.linear.dense(), one.bias);
      for (const auto& [execution, tolerance] :
           {std::pair{Execution::stored, 1e-5}, {Execution::expanded, 1e-5}, {Execution::packed, base.packed_tolerance}, {Execution::expanded, 1e-5}}) {
        one.linear.set_execution(execution);
        EXPECT_LT(relative_error(one.linear.forward(Activation(x)), want), tolerance) << one.name << " execution " << static_cast<int>(execution);
      }
      EXPECT_GT(relative_error(one.linear.dense(), Linear("b", base.kinds.front()).dense()), 0.02) << one.name << ": the adapter must make a difference";
    }
  }
}

TEST(LoraKind, PackedRowsDoNotDependOnTheOthersOfTheirBatch) {
  const at::NoGradGuard no_grad;
  for (const Base& base : bases()) {
    for (Adapted& one : adapted(base)) {
      one.linear.set_execution(Execution::packed);
      const Tensor x = at::randn({37, kIn});
      const Tensor together = one.linear.forward(Activation(x));
      for (const auto& [begin, count] : {std::pair<int64_t, int64_t>{0, 1}, {36, 1}, {5, 7}, {3, 16}}) {
        EXPECT_TRUE(at::equal(one.linear.forward(Activation(x.narrow(0, begin, count).clone())), together.narrow(0, begin, count))) << one.name;
      }
    }
  }
}

// The definitions in plain operators on the dense weight of the base.
Tensor defined(const std::string& name, const Tensor& x, const Tensor& base, const Tensor& bias, const std::map<std::string, Tensor>& t) {
  if (name.ends_with("IA3 inputs")) return at::linear(x * t.at("m.ia3_l"), base, bias);
  if (name.ends_with("IA3 outputs")) return at::linear(x, base, bias) * t.at("m.ia3_l").t();
  if (name.ends_with("AdaLoRA"))
    return at::linear(x, base + 0.7 * at::matmul(t.at("m.lora_B"), at::matmul(at::diag(t.at("m.lora_E").flatten()), t.at("m.lora_A"))), bias);
  if (name.ends_with("QA-LoRA")) {
    const Tensor sums = x.view({x.size(0), -1, 16}).sum(2) / 16 * (kIn / 16);
    return at::linear(x, base, bias) + 0.7 * at::linear(at::linear(sums, t.at("m.lora_A.weight")), t.at("m.lora_B.weight"));
  }
  const Tensor change = 0.7 * at::matmul(t.at("m.lora_B.weight"), t.at("m.lora_A.weight"));
  if (name.ends_with(" LoRA")) return at::linear(x, base + change, bias);
  const Tensor whole = base + change;
  return at::linear(x, whole * (t.at("m.lora_magnitude_vector") / whole.norm(2, {1}).detach()).unsqueeze(1), bias);
}

TEST(LoraKind, GradientsReachTheAdapterAndTheInputOnly) {
  for (const Base& base : bases()) {
    for (Adapted& one : adapted(base)) {
      if (one.name.ends_with("VeRA")) continue;  // peft's own gradients are compared with in tune/
      SCOPED_TRACE(one.name);
      std::map<std::string, Tensor> tensors, copies;
      one.kind->for_each_adapter_tensor("m", [&](const std::string& name, Tensor& tensor) {
        tensors[name] = tensor;
        copies[name] = tensor.detach().clone().requires_grad_();
      });
      Tensor dense = base.kinds.front()->dense().detach();
      for (size_t i = 1; i < base.kinds.size(); ++i) dense = dense + base.kinds[i]->dense().detach();
      const Tensor bias = one.linear.bias().defined() ? one.linear.bias() : one.bias / tensors.at("m.ia3_l").detach().flatten();
      const Tensor x = at::randn({6, kIn}).requires_grad_(), y = x.detach().clone().requires_grad_(), weights = at::randn({6, kOut});
      for (const Execution execution : {Execution::stored, Execution::expanded, Execution::packed}) {
        one.linear.set_execution(execution);
        for (auto& [name, tensor] : tensors) tensor.mutable_grad() = Tensor();
        x.mutable_grad() = Tensor();
        (one.linear.forward(Activation(x)) * weights).sum().backward();
        for (auto& [name, tensor] : copies) tensor.mutable_grad() = Tensor();
        y.mutable_grad() = Tensor();
        (defined(one.name, y, dense, bias, copies) * weights).sum().backward();
        EXPECT_LT(relative_error(x.grad(), y.grad()), 1e-5);
        for (const auto& [name, tensor] : tensors) {
          ASSERT_TRUE(tensor.grad().defined()) << name;
          EXPECT_LT(relative_error(tensor.grad(), copies.at(name).grad()), 1e-5) << name;
        }
      }
      for (const auto& kind : base.kinds) {
        kind->for_each_tensor("b", [](const std::string& name, Tensor& tensor) { EXPECT_FALSE(tensor.grad().defined()) << name; });
      }
    }
  }
}

// Of the input itself: what the backward keeps otherwise has the rank's width.
TEST(LoraKind, OnlyALearningAKeepsTheInputForTheBackward) {
  const Base base = bases().front();
  for (const bool learns : {true, false}) {
    Tensor a = trained({kRank, kIn});
    a.set_requires_grad(learns);
    Linear linear("m", base.kinds.front());
    linear.replace({base.kinds.front(), std::make_shared<LoraKind>(a, trained({kOut, kRank}), 0.7)});
    const Tensor leaf = at::randn({9, kIn}).requires_grad_();
    Tensor x = leaf + 1;
    const auto storage = x.storage().getWeakStorageImpl();
    const Tensor out = linear.forward(Activation(x));
    x = Tensor();
    EXPECT_EQ(storage.expired(), !learns);
    out.sum().backward();
    EXPECT_TRUE(leaf.grad().defined());
  }
}

TEST(LoraKind, BottlenecksComputeTheirDefinitionAndItsGradientsAndRowsAlone) {
  using Place = BottleneckKind::Place;
  using Function = BottleneckKind::Function;
  const std::pair<Function, Tensor (*)(const Tensor&)> functions[] = {
      {Function::relu, [](const Tensor& x) { return x.clamp_min(0); }},
      {Function::tanh, [](const Tensor& x) { return 2 * (2 * x).sigmoid() - 1; }},
      {Function::gelu, [](const Tensor& x) { return x * 0.5 * (1 + (x / std::sqrt(2.0)).erf()); }},
      {Function::silu, [](const Tensor& x) { return x / (1 + (-x).exp()); }}};
  for (const Base& base : bases()) {
    for (const Place place : {Place::output, Place::input, Place::parallel}) {
      for (const auto& [function, definition] : functions) {
        const int64_t size = 5, reads = place == Place::output ? kOut : kIn, writes = place == Place::input ? kIn : kOut;
        const Tensor bias = at::randn({kOut}), down = trained({size, reads}), up = trained({writes, size});
        Linear linear("m", base.kinds.front(), place == Place::output ? Tensor() : bias);
        linear.replace(std::make_shared<BottleneckKind>(base.kinds, down, up, BottleneckKind::Form{place, function, 0.7}, nullptr,
                                                        place == Place::output ? bias : Tensor()));
        Tensor dense = base.kinds.front()->dense().detach();
        for (size_t i = 1; i < base.kinds.size(); ++i) dense = dense + base.kinds[i]->dense().detach();
        const Tensor x = at::randn({9, kIn});
        const auto narrow = [&, f = definition](const Tensor& read) { return 0.7 * at::linear(f(at::linear(read, down)), up); };
        const Tensor before = at::linear(x, dense, bias);
        const Tensor want = place == Place::output  ? before + narrow(before)
                            : place == Place::input ? at::linear(x + narrow(x), dense, bias)
                                                    : before + narrow(x);
        const Tensor weights = at::randn({9, kOut});
        const auto gradients = [&](const Tensor& out) {
          down.mutable_grad() = Tensor();
          up.mutable_grad() = Tensor();
          (out * weights).sum().backward();
          return at::cat({down.grad().flatten(), up.grad().flatten()});
        };
        const Tensor want_gradients = gradients(want);
        const std::string what = fmt::format("{} place {} function {}", base.name, static_cast<int>(place), static_cast<int>(function));
        linear.set_execution(Execution::expanded);
        const Tensor out = linear.forward(Activation(x));
        EXPECT_LT(relative_error(out.detach(), want.detach()), 1e-5) << what;
        EXPECT_LT(relative_error(gradients(out), want_gradients), 1e-5) << what;
        EXPECT_THROW(linear.dense(), Error);
        const at::NoGradGuard no_grad;
        linear.set_execution(Execution::packed);
        const Tensor together = linear.forward(Activation(x));
        EXPECT_LT(relative_error(together, want), base.packed_tolerance) << what;
        for (int64_t row = 0; row < 9; ++row) {
          EXPECT_TRUE(at::equal(linear.forward(Activation(x.narrow(0, row, 1).clone())), together.narrow(0, row, 1))) << what;
        }
      }
    }
  }
}

TEST(LoraKind, DropoutIsDrawnFromItsGeneratorAndOffOutsideTraining) {
  const at::NoGradGuard no_grad;
  const auto dropout = std::make_shared<AdapterDropout>(0.4, 11);
  const Tensor ones = at::ones({400, 50});
  EXPECT_TRUE(at::equal(dropout->apply(ones), ones));
  dropout->set_training(true);
  const Tensor state = dropout->state();
  const Tensor first = dropout->apply(ones), second = dropout->apply(ones);
  EXPECT_NEAR(first.eq(0).to(at::kFloat).mean().item<double>(), 0.4, 0.02);
  EXPECT_NEAR(first.mean().item<double>(), 1, 0.03);
  EXPECT_FALSE(at::equal(first, second));
  dropout->set_state(state);
  EXPECT_TRUE(at::equal(dropout->apply(ones), first));
  EXPECT_TRUE(at::equal(dropout->apply(ones), second));
  const Base base = bases().front();
  for (Adapted& one : adapted(base, dropout)) {
    if (one.name.find("IA3") != one.name.npos) continue;
    const Tensor x = at::randn({5, kIn});
    const Tensor in_training = one.linear.forward(Activation(x));
    dropout->set_training(false);
    const Tensor in_use = one.linear.forward(Activation(x));
    dropout->set_training(true);
    EXPECT_GT(relative_error(in_training, in_use), 1e-3) << one.name;
    EXPECT_LT(relative_error(in_use, at::linear(x, one.linear.dense(), one.bias)), 1e-5) << one.name;
  }
}

}  // namespace
}  // namespace frugal::nn
