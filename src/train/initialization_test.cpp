// Initializations: what is computed against the papers' formulas in torch, how weights begin, and that mup's widths are alike where the usual start's are not.
#include "train/initialization.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/rng.h"
#include "models/test_tools.h"
#include "tiny_model.h"
#include "train/full_parameters.h"
#include "train/new_model.h"
#include "train/optimizer.h"

namespace frugal::train {
namespace {

using at::Tensor;
using ::testing::AllOf;
using ::testing::HasSubstr;

Options shape_of(const std::string& initialization, RawOptions more = {}) {
  RawOptions given = {{"hidden_size", "48"}, {"num_hidden_layers", "3"}, {"num_attention_heads", "4"}, {"num_key_value_heads", "2"}};
  for (auto& option : more) {
    std::erase_if(given, [&](const auto& other) { return other.first == option.first; });
    given.push_back(std::move(option));
  }
  given.emplace_back("initialization", initialization);
  return Options("shape", shape_options(), given);
}

nn::LoadedModel new_model(const io::TemporaryFolder& folder, const std::string& name, const Options& shape, uint64_t seed = 1) {
  write_new_model(folder / name, shape, models::TinyModels::get().path("llama"), seed);
  return models::Loader().load(folder / name);
}

double deviation(const Tensor& tensor) { return tensor.to(at::kDouble).pow(2).mean().sqrt().item<double>(); }

TEST(Initialization, ModelsComputeWhatThePapersSay) {
  Rng rng(testing::test_seed());
  at::manual_seed(testing::test_seed());
  const io::TemporaryFolder folder;
  const models::Loader loader;
  std::string arguments;
  std::vector<Tensor> logits;
  std::vector<std::string> paths;
  for (const char* id : {"deepnorm", "rezero", "skipinit", "fixup"}) {
    SCOPED_TRACE(id);
    const bool tied = rng.below(2) == 1;
    nn::LoadedModel made = new_model(folder, id, shape_of(id, {{"tie_word_embeddings", tied ? "true" : "false"}, {"initializer_range", "0.1"}}));
    {
      const at::NoGradGuard no_grad;  // not where they begin, which hides what they do
      made.model->for_each_tensor([](const std::string&, Tensor& tensor) {
        if (tensor.dim() < 2) tensor = 0.7 + 0.3 * at::randn(tensor.sizes());
      });
    }
    const std::string path = paths.emplace_back(folder / (std::string(id) + "-changed"));
    EXPECT_THAT(io::outcome_of([&] { loader.save(made, folder / "no", {.format = nn::SaveFormat::huggingface}); }), HasSubstr("transformers has no class"));
    EXPECT_THAT(io::outcome_of([&] { loader.save(made, folder / "no.gguf", {.format = nn::SaveFormat::gguf}); }),
                AllOf(HasSubstr("unsupported"), HasSubstr("GGUF has no words")));
    loader.save(made, path, {.float_format = "F32"});
    const std::vector<int32_t> tokens = testing::random_tokens(17, made.model->spec.vocab);
    models::write_tokens(path + ".tokens", tokens);
    const nn::LoadedModel again = loader.load(path);
    EXPECT_EQ(again.model->spec, made.model->spec);
    logits.push_back(models::logits_of(again, tokens));
    EXPECT_TRUE(at::equal(logits.back(), models::logits_of(made, tokens)));
    arguments += fmt::format("{} {} {} {} ", id, path, path + ".tokens", path + ".logits");
  }
  io::run_oracle("run_initialized.py", arguments);
  for (size_t i = 0; i < paths.size(); ++i)
    EXPECT_LT(models::relative_difference(logits[i], models::read_tensors(paths[i] + ".logits").at("logits")), models::kRounding) << paths[i];
}

TEST(Initialization, WeightsBeginAsTheRowsSay) {
  const io::TemporaryFolder folder;
  constexpr double kLayers = 3, kHidden = 48, kKeys = 24, kInner = 128, kRange = 0.02;
  const auto xavier = [](double a, double b) { return std::sqrt(2 / (a + b)); };
  const auto check = [&](const std::string& text, double branch, double scale, double embedding_scale) {
    SCOPED_TRACE(text);
    nn::LoadedModel loaded = new_model(folder, "model", shape_of(text));
    std::filesystem::remove_all(folder / "model");
    const nn::Block& block = loaded.model->blocks[1];
    const auto near = [](const nn::Linear& linear, double want) { EXPECT_NEAR(deviation(linear.dense()), want, 0.06 * want) << linear.name(); };
    near(block.query, xavier(kHidden, kHidden));
    near(block.key, xavier(kHidden, kKeys));
    near(block.value, branch * xavier(kHidden, kKeys));
    near(block.output, branch * xavier(kHidden, kHidden));
    near(block.gate, xavier(kHidden, kInner));
    near(block.up, branch * xavier(kHidden, kInner));
    near(block.down, branch * xavier(kHidden, kInner));
    EXPECT_NEAR(deviation(loaded.model->embedding->dense()), kRange, 0.06 * kRange);
    EXPECT_NEAR(loaded.model->spec.embedding_scale, embedding_scale, 1e-4 * embedding_scale);
    EXPECT_EQ(block.attention_branch_scale.defined(), scale >= 0);
    for (const auto& [name, number] : loaded.model->blocks[1].branch_scales()) EXPECT_FLOAT_EQ(number->item<float>(), static_cast<float>(scale)) << name;
    return loaded.model->spec.blocks[1].residual_scale;
  };
  EXPECT_DOUBLE_EQ(check("deepnorm", std::pow(8 * kLayers, -0.25), -1, 1 / kRange), std::pow(2 * kLayers, 0.25));
  EXPECT_EQ(check("deepnorm:alpha=1,beta=1", 1, -1, 1 / kRange), 1);
  check("rezero", 1, 0, 1 / kRange);
  check("skipinit", 1, 1 / std::sqrt(2 * kLayers), 1 / kRange);
  check("skipinit:alpha=zero", 1, 0, 1 / kRange);
  check("fixup", 0.67 * std::pow(kLayers, -0.25), -1, std::pow(9 * kLayers, -0.25) / kRange);
}

// Sizes of the numbers in the residual stream, and of what has changed in the logits, after a few steps of AdamW on one batch.
struct Coordinates {
  double hidden = 0, logits = 0;
};

Coordinates after_steps(const io::TemporaryFolder& folder, int64_t width, const std::string& initialization, int64_t heads, double rate) {
  const Options shape = shape_of(initialization, {{"hidden_size", std::to_string(width)},
                                                  {"num_hidden_layers", "2"},
                                                  {"num_attention_heads", std::to_string(heads)},
                                                  {"num_key_value_heads", std::to_string(heads)},
                                                  {"initializer_range", "0.05"}});
  const nn::LoadedModel loaded = new_model(folder, "model", shape, testing::test_seed());
  std::filesystem::remove_all(folder / "model");
  nn::Model& model = *loaded.model;
  std::vector<Parameter> parameters = all_parameters(model);
  scale_rates(shape, model.spec, "adamw", parameters);
  model.set_execution(nn::Execution::expanded);
  const auto& row = optimizer_table().at("adamw");
  const auto optimizer = row.function(parameters, Options(row.id, row.options, {{"weight_decay", "0"}}));
  std::vector<int32_t> tokens;
  Rng rng(testing::test_seed());
  for (int i = 0; i < 64; ++i) tokens.push_back(static_cast<int32_t>(rng.below(static_cast<uint64_t>(model.spec.vocab))));
  const nn::Batch batch = nn::Batch::equal_parts(tokens, 16);
  const Tensor next = at::roll(at::tensor(std::vector<int64_t>(tokens.begin(), tokens.end()), at::kLong), -1);
  const Tensor before = [&] {
    const at::NoGradGuard no_grad;
    return model.forward(batch).logits;
  }();
  for (int step = 0; step < 4; ++step) {
    at::cross_entropy_loss(model.forward(batch).logits, next).backward();
    optimizer->step(rate);
    for (const Parameter& parameter : parameters) parameter.tensor.mutable_grad() = Tensor();
  }
  const at::NoGradGuard no_grad;
  Tensor hidden = model.embed(tokens);
  const Tensor positions = nn::Model::positions(batch.sequences);
  for (const nn::Block& block : model.blocks) hidden = block.forward(hidden, batch.sequences, positions);
  return {deviation(hidden), deviation(model.forward(batch).logits - before)};
}

TEST(Mup, CoordinatesAreAlikeAtAllWidthsAndGrowWithTheUsualStart) {
  const io::TemporaryFolder folder;
  constexpr double kRate = 1e-2;
  const auto growth = [&](const std::string& initialization, bool wider_heads) {
    const Coordinates narrow = after_steps(folder, 64, initialization, 4, kRate), wide = after_steps(folder, 512, initialization, wider_heads ? 4 : 32, kRate);
    std::cout << (initialization.empty() ? "the usual start" : initialization) << ": hidden " << narrow.hidden << " -> " << wide.hidden << ", change of logits "
              << narrow.logits << " -> " << wide.logits << std::endl;
    return Coordinates{wide.hidden / narrow.hidden, wide.logits / narrow.logits};
  };
  for (const bool wider_heads : {false, true}) {
    const Coordinates mup = growth(wider_heads ? "mup:base_width=64,base_head_dim=16" : "mup:base_width=64", wider_heads);
    EXPECT_GT(mup.hidden, 0.6);
    EXPECT_LT(mup.hidden, 1.6);
    EXPECT_GT(mup.logits, 0.5);
    EXPECT_LT(mup.logits, 2);
    const Coordinates usual = growth("", wider_heads);
    EXPECT_GT(usual.hidden, 5) << "the check can fail";
    EXPECT_GT(usual.logits, 1.5 * mup.logits);
  }
}

TEST(Mup, AtTheBaseWidthItIsTheUsualStart) {
  const io::TemporaryFolder folder;
  const Options shape = shape_of("mup:base_width=48,base_head_dim=12");
  nn::LoadedModel usual = new_model(folder, "usual", shape_of("")), made = new_model(folder, "mup", shape);
  EXPECT_EQ(made.model->spec, usual.model->spec);
  EXPECT_TRUE(at::equal(made.model->blocks[2].query.dense(), usual.model->blocks[2].query.dense()));
  std::vector<Parameter> parameters = all_parameters(*made.model);
  scale_rates(shape, made.model->spec, "adamw", parameters);
  for (const Parameter& parameter : parameters) EXPECT_EQ(parameter.learning_rate_scale, 1) << parameter.name;
}

// The paper's form: multipliers in the forward pass, and rates of table 8. Ours has none of the multipliers; steps of both are the same.
TEST(Mup, MultipliersInTheStartAndTheRatesAreThoseOfTheForwardPass) {
  const io::TemporaryFolder folder;
  for (const bool tied : {true, false}) {
    const Options shape = shape_of("mup:base_width=12,base_head_dim=3", {{"tie_word_embeddings", tied ? "true" : "false"}, {"initializer_range", "0.1"}});
    nn::LoadedModel ours = new_model(folder, tied ? "tied" : "untied", shape), theirs = models::Loader().load(folder / (tied ? "tied" : "untied"));
    constexpr double m = 4;
    const double attention = std::sqrt(3.0 / 12.0);  // of base and present channels of a head
    std::vector<Parameter> scaled = all_parameters(*ours.model), plain = all_parameters(*theirs.model);
    scale_rates(shape, ours.model->spec, "adamw", scaled);
    {
      const at::NoGradGuard no_grad;
      for (Parameter& parameter : plain) {
        const bool block_matrix = parameter.tensor.dim() == 2 && parameter.name.starts_with("model.layers.");
        if (block_matrix) parameter.learning_rate_scale = 1 / m;
        if (parameter.name.ends_with("q_proj.weight")) parameter.tensor.div_(attention);
        if (parameter.name == "model.norm.weight") parameter.tensor.fill_(1);
        if (parameter.name == "lm_head.weight") parameter.tensor.mul_(m);
      }
    }
    for (nn::Block& block : theirs.model->blocks) block.spec.attention_scale *= attention;
    for (nn::Model* model : {ours.model.get(), theirs.model.get()}) model->set_execution(nn::Execution::expanded);
    const auto& row = optimizer_table().at("adamw");
    const Options adam(row.id, row.options, {{"weight_decay", "0"}, {"eps", "1e-30"}});
    const auto optimizer = row.function(scaled, adam), reference = row.function(plain, adam);
    const std::vector<int32_t> tokens = testing::random_tokens(24, ours.model->spec.vocab);
    const Tensor next = at::roll(at::tensor(std::vector<int64_t>(tokens.begin(), tokens.end()), at::kLong), -1);
    const auto loss = [&](const nn::Model& model, double multiplier) {
      return at::cross_entropy_loss(model.forward(nn::Batch::single(tokens, nullptr)).logits * multiplier, next);
    };
    double first = 0;
    for (int step = 0; step < 5; ++step) {
      const Tensor got = loss(*ours.model, 1), want = loss(*theirs.model, 1 / m);
      EXPECT_NEAR(got.item<double>(), want.item<double>(), 1e-3 * want.item<double>()) << step << (tied ? " tied" : " untied");
      first = step == 0 ? got.item<double>() : first;
      EXPECT_TRUE(step < 4 || got.item<double>() < 0.9 * first) << "it learns";
      got.backward();
      want.backward();
      optimizer->step(1e-2);
      reference->step(1e-2);
      for (const auto* parameters : {&scaled, &plain}) {
        for (const Parameter& parameter : *parameters) parameter.tensor.mutable_grad() = Tensor();
      }
    }
  }
}

TEST(Initialization, RowsAreWhole) {
  for (const InitializationRow& row : initialization_table().rows()) {
    SCOPED_TRACE(row.id);
    EXPECT_EQ(row.leaf, "train");
    for (const std::string& text : {row.title, row.arxiv, row.summary}) EXPECT_FALSE(text.empty());
    EXPECT_NE(row.claims.empty(), row.reference.empty());
    EXPECT_NE(row.function.begin, nullptr);
  }
}

TEST(Initialization, BadCombinationsAreRefusedByName) {
  const auto refusal = [](const std::string& initialization, RawOptions more = {}, const std::string& optimizer = "adamw") {
    return io::outcome_of([&] {
      const Options shape = shape_of(initialization, std::move(more));
      std::vector<Parameter> none;
      scale_rates(shape, new_model_spec(shape, 100), optimizer, none);
    });
  };
  EXPECT_THAT(refusal("rezro"), HasSubstr("did you mean \"rezero\""));
  EXPECT_THAT(refusal("rezero:alpha=1"), HasSubstr("alpha"));
  EXPECT_THAT(refusal("skipinit:alpha=one"), HasSubstr("alpha"));
  EXPECT_THAT(refusal("deepnorm", {{"sub_norms", "true"}}), AllOf(HasSubstr("unsupported"), HasSubstr("deepnorm"), HasSubstr("sub_norms")));
  EXPECT_THAT(refusal("mup", {}, "sgd"), AllOf(HasSubstr("unsupported"), HasSubstr("mup"), HasSubstr("sgd")));
  EXPECT_THAT(refusal("rezero", {}, "sgd"), ::testing::Not(HasSubstr("unsupported")));
}

}  // namespace
}  // namespace frugal::train
