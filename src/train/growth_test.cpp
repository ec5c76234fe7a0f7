// Growth of random shapes: what stays the same, what is told apart, AdamW's state against gradients, and transformers on what is written.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "base/rng.h"
#include "models/test_tools.h"
#include "oracle.h"
#include "tiny_model.h"
#include "train/full_parameters.h"
#include "train/growth.h"
#include "train/language_modeling.h"
#include "train/optimizer.h"

namespace frugal::train {
namespace {

using at::Tensor;
using testing::TinyModelOptions;

Grown grown_by(const std::string& text, const nn::Model& model, const TensorMap* adamw = nullptr, uint64_t seed = 1) {
  const StepText method = parse_step(text);
  const auto& row = growth_table().at(method.id);
  return row.function(model, adamw, Options(row.id, row.options, method.options), seed);
}

std::string refusal(const std::string& text, const nn::Model& model) {
  return io::outcome_of([&] { grown_by(text, model); });
}

TinyModelOptions random_shape(Rng& rng, bool may_have_qk_norm) {
  TinyModelOptions shape;
  shape.kv_heads = rng.between(1, 3);
  shape.heads = shape.kv_heads * rng.between(1, 3);
  shape.head_dim = 2 * rng.between(2, 6);
  shape.hidden = rng.between(20, 60);
  shape.intermediate = rng.between(30, 90);
  shape.blocks = static_cast<int>(rng.between(1, 4));
  shape.tied = rng.below(2) == 1;
  shape.biases = rng.below(2) == 1;
  shape.qk_norm = may_have_qk_norm && rng.below(2) == 1;
  std::cout << "hidden " << shape.hidden << ", intermediate " << shape.intermediate << ", heads " << shape.heads << "/" << shape.kv_heads << " x "
            << shape.head_dim << ", blocks " << shape.blocks << (shape.tied ? ", tied" : "") << (shape.biases ? ", biases" : "")
            << (shape.qk_norm ? ", norms of q and k" : "") << std::endl;
  return shape;
}

// Gradients of all parameters by name, of the mean loss on random tokens.
std::map<std::string, Tensor> gradients_of(nn::Model& model, const std::vector<int32_t>& tokens) {
  const std::vector<Parameter> parameters = all_parameters(model);
  const Tensor logits = model.forward(nn::Batch::single(tokens, nullptr)).logits;
  std::vector<int64_t> next(tokens.begin() + 1, tokens.end());
  at::cross_entropy_loss(logits.narrow(0, 0, logits.size(0) - 1), at::tensor(next, at::kLong)).backward();
  std::map<std::string, Tensor> gradients;
  for (const Parameter& parameter : parameters) gradients[parameter.name] = parameter.tensor.grad();
  return gradients;
}

TEST(Staged, KeepsTheFunctionInDepthWidthAndBoth) {
  Rng rng(testing::test_seed());
  at::manual_seed(testing::test_seed());
  for (int round = 0; round < 8; ++round) {
    const TinyModelOptions shape = random_shape(rng, true);
    const nn::Model model = testing::tiny_model(shape);
    const int64_t factor = rng.between(2, 3);
    for (const std::string& text :
         {fmt::format("staged:num_hidden_layers={}", shape.blocks + rng.between(1, 4)), fmt::format("staged:hidden_size={}", factor * shape.hidden),
          fmt::format("staged:num_hidden_layers={},hidden_size={},num_attention_heads={},num_key_value_heads={},intermediate_size={}", 2 * shape.blocks,
                      6 * shape.hidden, 3 * shape.heads, 3 * shape.kv_heads, 4 * shape.intermediate),
          fmt::format("staged:hidden_size={},num_attention_heads={},num_key_value_heads={},intermediate_size={}", 2 * shape.hidden, 2 * shape.heads,
                      shape.kv_heads, shape.intermediate)}) {
      SCOPED_TRACE(text);
      const Grown grown = grown_by(text, model);
      EXPECT_LT(logits_difference(model, *grown.model, 7), 1e-4);
      EXPECT_GT(grown.model->parameters(), model.parameters());
      EXPECT_EQ(grown.model->original_parameters, grown.model->parameters());
    }
  }
}

TEST(Lemon, KeepsTheFunctionToRoundingAtWidthsThatAreNoMultiples) {
  Rng rng(testing::test_seed() + 1);
  at::manual_seed(testing::test_seed());
  for (int round = 0; round < 12; ++round) {
    const TinyModelOptions shape = random_shape(rng, false);
    const nn::Model model = testing::tiny_model(shape);
    const int64_t key_heads = shape.kv_heads + rng.between(0, 3), group = shape.heads / shape.kv_heads + rng.between(0, 2);
    const int64_t hidden = shape.hidden + rng.between(1, 2 * shape.hidden), heads = key_heads * group;
    const std::string text = fmt::format("lemon:num_hidden_layers={},hidden_size={},num_attention_heads={},num_key_value_heads={},intermediate_size={}",
                                         shape.blocks + rng.between(0, 3), (hidden + heads - 1) / heads * heads, heads, key_heads,
                                         shape.intermediate + rng.between(0, 2 * shape.intermediate));
    SCOPED_TRACE(text);
    EXPECT_LT(logits_difference(model, *grown_by(text, model).model, 7), 1e-5);
  }
}

// With noise copies have different gradients; without it they are equal to rounding, which is why there is noise.
TEST(Growth, TellsCopiesApartUnlessItIsSaidOtherwise) {
  at::manual_seed(testing::test_seed());
  const nn::Model model = testing::tiny_model();
  const std::vector<int32_t> tokens = testing::random_tokens(40, model.spec.vocab);
  for (const std::string method : {"staged", "lemon"}) {
    for (const bool noise : {true, false}) {
      SCOPED_TRACE(method + (noise ? "" : " without noise"));
      const Grown grown = grown_by(method + ":hidden_size=80" + (noise ? "" : ",noise=0"), model);
      const auto gradients = gradients_of(*grown.model, tokens);
      for (const std::string name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"}) {
        const Tensor gradient = gradients.at("model.layers.0." + name + ".weight");
        const double apart = testing::relative_error(gradient.chunk(2, 0)[0], gradient.chunk(2, 0)[1]);
        if (noise)
          EXPECT_GT(apart, 1e-3) << name;
        else
          EXPECT_LT(apart, 1e-4) << name;
      }
    }
  }
}

// The moments of the larger model after one step from nothing are its gradient times 1 - beta: what the map of the small model's must give.
TEST(Staged, MapsTheStateOfAdamWAsGradientsAre) {
  Rng rng(testing::test_seed() + 2);
  at::manual_seed(testing::test_seed());
  for (int round = 0; round < 6; ++round) {
    const TinyModelOptions shape = random_shape(rng, true);
    nn::Model model = testing::tiny_model(shape);
    const std::vector<int32_t> tokens = testing::random_tokens(40, shape.vocab);
    TensorMap state;
    for (const auto& [name, gradient] : gradients_of(model, tokens)) {
      state["step." + name] = at::full({}, 3.0f);
      state["exp_avg." + name] = gradient.clone();
      state["exp_avg_sq." + name] = gradient.square();
    }
    const Grown grown =
        grown_by(fmt::format("staged:noise=0,hidden_size={},num_hidden_layers={},num_attention_heads={},num_key_value_heads={},intermediate_size={}",
                             6 * shape.hidden, shape.blocks * 2, shape.heads * 6, shape.kv_heads * 3, shape.intermediate * 4),
                 model, &state);
    const auto gradients = gradients_of(*grown.model, tokens);
    EXPECT_EQ(grown.optimizer.size(), 3 * gradients.size());
    for (const auto& [name, gradient] : gradients) {
      SCOPED_TRACE(name);
      const bool is_new = name.starts_with("model.layers.") && parse_integer(name.substr(13, name.find('.', 13) - 13), "block") % 2 == 1;
      EXPECT_EQ(grown.optimizer.at("step." + name).item<float>(), is_new ? 0 : 3);
      ASSERT_EQ(grown.optimizer.at("exp_avg." + name).sizes(), gradient.sizes());
      if (is_new) {
        EXPECT_EQ(grown.optimizer.at("exp_avg_sq." + name).abs().max().item<float>(), 0);
        continue;
      }
      if (gradient.norm().item<double>() < 1e-6) continue;  // a bias of keys, which softmax does not see
      EXPECT_LT(testing::relative_error(grown.optimizer.at("exp_avg." + name), gradient), 1e-3);
      EXPECT_LT(testing::relative_error(grown.optimizer.at("exp_avg_sq." + name), gradient.square()), 1e-3);
    }
  }
}

TEST(Stacking, PutsCopiesOnTopAndTheTopmostWhereTheyAreFewer) {
  at::manual_seed(testing::test_seed());
  TinyModelOptions shape;
  shape.blocks = 3;
  const nn::Model model = testing::tiny_model(shape);
  const auto sources = [&](const std::string& text) {
    std::vector<int> found;
    const Grown grown = grown_by(text, model);
    for (const nn::Block& block : grown.model->blocks) {
      for (int i = 0; i < 3; ++i) {
        if (block.up.dense().equal(model.blocks[static_cast<size_t>(i)].up.dense())) found.push_back(i);
      }
    }
    return found;
  };
  EXPECT_EQ(sources("stacking"), (std::vector{0, 1, 2, 0, 1, 2}));
  EXPECT_EQ(sources("stacking:num_hidden_layers=5"), (std::vector{0, 1, 2, 1, 2}));
  EXPECT_EQ(sources("stacking:num_hidden_layers=10"), (std::vector{0, 1, 2, 2, 0, 1, 2, 0, 1, 2}));
  EXPECT_GT(logits_difference(model, *grown_by("stacking", model).model, 7), 1e-3);
}

TEST(Growth, TransformersComputesWhatIsWritten) {
  const models::Loader loader;
  const io::TemporaryFolder folder;
  std::vector<std::string> paths;
  std::vector<std::vector<int32_t>> tokens;
  std::vector<Tensor> before;
  for (const std::string name : {"llama", "llama_bias", "llama_bf16", "qwen2", "mistral"}) {
    nn::LoadedModel loaded = loader.load(models::TinyModels::get().path(name));
    tokens.push_back(models::ids_of(models::TinyModels::get().expected(name).at("tokens")));
    before.push_back(models::logits_of(loaded, tokens.back()));
    const nn::BlockSpec& block = loaded.model->spec.blocks.front();
    const int64_t key_heads = block.kv_heads + 1, heads = key_heads * (block.heads / block.kv_heads);
    loaded.model = grown_by(fmt::format("lemon:num_hidden_layers=5,hidden_size={},num_attention_heads={},num_key_value_heads={},intermediate_size={}",
                                        (block.hidden / heads + 1) * heads, heads, key_heads, block.intermediate + 7),
                            *loaded.model)
                       .model;
    paths.push_back(folder / name);
    loader.save(loaded, paths.back(), {.format = nn::SaveFormat::huggingface, .float_format = "F32"});
  }
  const std::vector<Tensor> logits = models::transformers_logits(paths, tokens);
  for (size_t i = 0; i < paths.size(); ++i) EXPECT_LT(models::relative_difference(logits[i], before[i]), models::kRounding) << paths[i];
}

TEST(Growth, RefusesWithTheReason) {
  using ::testing::AllOf;
  using ::testing::HasSubstr;
  const nn::Model model = testing::tiny_model();  // hidden 40, heads 5 on 1, intermediate 72, 2 blocks
  EXPECT_THAT(refusal("staged", model), AllOf(HasSubstr("invalid input"), HasSubstr("nothing grows")));
  EXPECT_THAT(refusal("staged:hidden_size=60,num_attention_heads=5,intermediate_size=72", model), HasSubstr("lemon takes other widths"));
  EXPECT_THAT(refusal("lemon:hidden_size=60", model), AllOf(HasSubstr("num_attention_heads: 5 times 60 / 40"), HasSubstr("say how many")));
  EXPECT_THAT(refusal("lemon:hidden_size=39,num_attention_heads=5,intermediate_size=72", model), HasSubstr("it can only grow"));
  EXPECT_THAT(refusal("lemon:num_attention_heads=6,num_key_value_heads=4", model), HasSubstr("no multiple of num_key_value_heads"));
  EXPECT_THAT(refusal("lemon:num_attention_heads=6,num_key_value_heads=2", model), HasSubstr("groups can only grow"));
  EXPECT_THAT(refusal("lemon:num_attention_heads=6,num_key_value_heads=1", model), HasSubstr("hidden_size 40 is no multiple of num_attention_heads 6"));
  EXPECT_THAT(refusal("stacking:num_hidden_layers=2", model), HasSubstr("it can only grow"));
  EXPECT_THAT(refusal("stackin", model), HasSubstr("did you mean \"stacking\""));
  EXPECT_THAT(refusal("stacking", testing::tiny_model({.post_norms = true})), AllOf(HasSubstr("unsupported"), HasSubstr("norms after attention and MLP")));
  EXPECT_THAT(refusal("stacking", testing::tiny_model({.sub_norms = true})), HasSubstr("norms before the output projections"));
  EXPECT_THAT(refusal("staged", testing::tiny_model({.norm = nn::NormKind::none})), HasSubstr("with no norms"));
  EXPECT_THAT(refusal("staged", testing::tiny_model({.norm_after_add = true})), HasSubstr("norms after the residual sum"));
  EXPECT_THAT(refusal("staged", testing::tiny_model({.branch_scales = true})), HasSubstr("a scaled residual sum"));
  EXPECT_THAT(refusal("lemon:hidden_size=50,num_attention_heads=5,intermediate_size=72", testing::tiny_model({.qk_norm = true})),
              AllOf(HasSubstr("unsupported"), HasSubstr("norms of q and k")));
  nn::Model uneven = testing::tiny_model();
  uneven.blocks[1].spec.sliding_window = uneven.spec.blocks[1].sliding_window = 8;
  EXPECT_THAT(refusal("stacking", uneven), HasSubstr("block 1 from block 0"));
  nn::Model encoded = testing::tiny_model();
  encoded.blocks[0].up.replace(std::make_shared<nn::GroupedKind>(std::make_shared<formats::GroupedWeight>(testing::random_grouped(72, 40, 4, 8, true))));
  EXPECT_THAT(refusal("stacking", encoded), AllOf(HasSubstr("unsupported"), HasSubstr("model.layers.0.mlp.up_proj"), HasSubstr("plain floats")));
  TensorMap of_another;
  EXPECT_THROW(grown_by("staged:num_hidden_layers=4", model, &of_another), Error);
  for (const GrowthRow& row : growth_table().rows()) {
    EXPECT_FALSE(row.claims.empty()) << row.id;
    for (const Claim& claim : row.claims) {
      const StepText method = parse_step(claim.method.front());
      EXPECT_NO_THROW(Options(row.id, row.options, method.options));
    }
  }
}

}  // namespace
}  // namespace frugal::train
