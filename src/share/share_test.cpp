// Shared weights are one: in the model, in its gradients and in its files.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <torch/csrc/autograd/autograd.h>

#include <filesystem>

#include "base/error.h"
#include "models/loader.h"
#include "nn/sharing.h"
#include "oracle.h"
#include "share/share_table.h"
#include "tiny_model.h"
#include "train/cost_model.h"
#include "train/cross_entropy.h"
#include "train/flops.h"
#include "train/full_parameters.h"
#include "train/hidden_states.h"
#include "train/new_model.h"

namespace frugal::share {
namespace {

using at::Tensor;
using testing::relative_error;

constexpr const char* kFamilies[] = {"mobilellm", "mobillama"};

// A model of four blocks, and its twin whose blocks have copies of the weights.
struct Twins {
  nn::Model shared, twin;
};
Twins twins(const std::string& family) {
  Twins both{testing::tiny_model({.vocab = 50, .blocks = 4}), {}};
  nn::Model& model = both.shared;
  model.spec.family = family;
  const nn::Sharing sharing = nn::sharing_of(model.spec);
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    for (nn::Linear* linear : model.blocks[i].linears()) {
      const std::string module = linear->name().substr(std::string("model.layers.0.").size());
      linear->rename("model.layers." + std::to_string(sharing.stored(i)) + "." + module);
    }
  }
  nn::share_weights(model);
  model.original_parameters = model.parameters();
  both.twin = model;
  both.twin.spec.family = "llama";
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    for (nn::Linear* linear : both.twin.blocks[i].linears()) {
      const std::string module = linear->name().substr(std::string("model.layers.0.").size());
      linear->rename("model.layers." + std::to_string(i) + "." + module);
      linear->replace(std::make_shared<nn::DenseKind>(linear->dense().clone()));
    }
    for (const auto& [name, norm] : both.twin.blocks[i].norms()) norm->weight = norm->weight.clone();
  }
  return both;
}

nn::Batch batch_of() { return nn::Batch::single(std::vector<int32_t>{3, 1, 4, 1, 5, 9, 2, 6}, nullptr); }

double backward(const nn::Model& model) {
  const Tensor loss = train::cross_entropy(model, train::hidden_states(model, batch_of()), at::tensor({1, 4, 1, 5, 9, 2, 6, 5}, at::kLong), 0.125);
  torch::autograd::backward({loss}, {});
  return loss.item<double>();
}

TEST(Sharing, ComputesWhatCopiesOfTheWeightsDoAndGradientsAddUp) {
  at::manual_seed(testing::test_seed());
  for (const char* family : kFamilies) {
    SCOPED_TRACE(family);
    auto [shared, twin] = twins(family);
    const nn::Sharing sharing = nn::sharing_of(shared.spec);
    EXPECT_EQ(train::training_flops(shared).of(8, 8), train::training_flops(twin).of(8, 8)) << "what is computed is the same";
    const auto ours = train::all_parameters(shared), theirs = train::all_parameters(twin);
    EXPECT_LT(ours.size(), theirs.size());
    EXPECT_NEAR(backward(shared), backward(twin), 1e-6);
    std::map<std::string, Tensor> sums;
    for (const train::Parameter& parameter : theirs) {
      std::string name = parameter.name;
      const std::string prefix = "model.layers.";
      if (name.starts_with(prefix)) {
        const size_t block = static_cast<size_t>(name[prefix.size()] - '0');
        const bool mlp = name.find(".mlp.") != name.npos;
        name[prefix.size()] = static_cast<char>('0' + (mlp && sharing.one_mlp ? 0 : sharing.stored(block)));
      }
      const Tensor& gradient = parameter.tensor.grad();
      sums[name] = sums.contains(name) ? sums[name] + gradient : gradient;
    }
    EXPECT_EQ(sums.size(), ours.size()) << "each is there once";
    for (const train::Parameter& parameter : ours) EXPECT_LT(relative_error(parameter.tensor.grad(), sums.at(parameter.name)), 1e-5) << parameter.name;
  }
}

TEST(Sharing, WeightsAreInMemoryAndInTheFileOnce) {
  at::manual_seed(testing::test_seed());
  const at::NoGradGuard no_grad;
  for (const char* family : kFamilies) {
    SCOPED_TRACE(family);
    nn::LoadedModel loaded;
    loaded.model = std::make_shared<nn::Model>(twins(family).shared);
    const std::string path = ::testing::TempDir() + "/shared-" + family;
    std::filesystem::remove_all(path);
    models::Loader().save(loaded, path, {});
    const nn::LoadedModel again = models::Loader().load(path, nn::Execution::expanded);
    EXPECT_EQ(again.model->spec.blocks.size(), 4u);
    EXPECT_EQ(again.model->spec.family, family);
    EXPECT_EQ(again.model->parameters(), loaded.model->parameters());
    EXPECT_EQ(again.model->storage_bytes(), 4 * again.model->parameters());
    EXPECT_LT(again.file_bytes, again.model->storage_bytes() + 8192) << "and what describes the tensors";
    EXPECT_EQ(again.model->blocks[1].up.kinds().front(), again.model->blocks[0].up.kinds().front()) << "one object, so one memory";
    EXPECT_EQ(again.model->blocks[1].query.kinds().front() == again.model->blocks[0].query.kinds().front(), std::string(family) == "mobilellm");
    EXPECT_NE(again.model->blocks[1].spec.state_slot, again.model->blocks[0].spec.state_slot) << "keys and values are each block's own";
    EXPECT_TRUE(at::equal(again.model->forward(batch_of()).logits, loaded.model->forward(batch_of()).logits));
    EXPECT_THAT(models::Loader().cannot_express(*again.model, nn::SaveFormat::gguf), ::testing::HasSubstr("share"));
  }
}

TEST(Sharing, ANewModelsTensorsAreThoseThatTrain) {
  for (const char* sharing : {"none", "blocks", "mlp"}) {
    const Options shape("shape", train::shape_options(),
                        {{"sharing", sharing}, {"num_hidden_layers", "3"}, {"hidden_size", "32"}, {"num_attention_heads", "2"}});
    const nn::ModelSpec spec = train::new_model_spec(shape, 60);
    EXPECT_EQ(spec.blocks.size(), std::string(sharing) == "blocks" ? 6u : 3u);
    size_t mlps = 0, norms = 0;
    for (const train::Parameter& parameter : train::parameters_of(spec)) {
      mlps += parameter.name.ends_with("mlp.up_proj.weight");
      norms += parameter.name.ends_with("post_attention_layernorm.weight");
    }
    EXPECT_EQ(mlps, std::string(sharing) == "mlp" ? 1u : 3u);
    EXPECT_EQ(norms, 3u);
  }
  EXPECT_THROW(train::new_model_spec(Options("shape", train::shape_options(), {{"sharing", "mlp"}, {"sub_norms", "true"}}), 60), Error);
}

TEST(Sharing, APlanCountsWhatIsComputedAgain) {
  const auto& adamw = train::optimizer_table().at("adamw");
  const auto estimate = [&](const char* sharing, const char* layers) {
    const Options shape("shape", train::shape_options(), {{"sharing", sharing}, {"num_hidden_layers", layers}});
    train::Workload work;
    work.micro_batch_tokens = work.sequence_tokens = 64;
    return train::estimate_cost(train::new_model_spec(shape, 500), work, {.flops = 1e12}, adamw, Options("adamw", adamw.options, {}));
  };
  EXPECT_NEAR(estimate("blocks", "3").compute_seconds, estimate("none", "6").compute_seconds, 1e-15);
  EXPECT_EQ(estimate("blocks", "3").optimizer, estimate("none", "3").optimizer);
  EXPECT_NEAR(estimate("mlp", "3").compute_seconds, estimate("none", "3").compute_seconds, 1e-15);
  EXPECT_LT(estimate("mlp", "3").optimizer, estimate("none", "3").optimizer);
}

TEST(Sharing, EveryRowNamesASharingOfNewModels) {
  for (const ShareRow& row : share_table().rows()) {
    EXPECT_EQ(row.leaf, "share");
    EXPECT_FALSE(row.claims.empty());
    EXPECT_TRUE(nn::sharing_of(train::new_model_spec(Options("shape", train::shape_options(), {{"sharing", row.function.sharing}}), 60)).any()) << row.id;
  }
  EXPECT_TRUE(share_table().find("mobilellm-ls") && share_table().find("mobillama"));
}

}  // namespace
}  // namespace frugal::share
