// The oracle is the package peft: it makes adapters on tiny random models (tests/oracle/make_peft_adapters.py), and reads ours.
#include "tune/adapter.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "chain/grid.h"
#include "models/test_tools.h"
#include "text/tokenizer.h"
#include "tiny_model.h"
#include "train/checkpoint.h"
#include "train/flops.h"
#include "tune/target_modules.h"

namespace frugal::tune {
namespace {

using io::outcome_of;
using models::kRounding;
using models::read_tensors;
using models::relative_difference;
using nn::Execution;
using testing::TemporaryFolder;

class PeftAdapters {
 public:
  static const PeftAdapters& get() {
    static const PeftAdapters adapters;
    return adapters;
  }
  const std::vector<std::string>& names() const { return names_; }
  std::string path(const std::string& name) const { return folder_ / name; }
  std::string base(const std::string& name) const { return folder_ / name.substr(0, name.find('_')); }
  std::map<std::string, Tensor> expected(const std::string& name) const { return read_tensors(path(name) + ".expected.safetensors"); }

 private:
  PeftAdapters() {
    std::istringstream lines(io::run_oracle("make_peft_adapters.py", fmt::format("{} {}", folder_.path(), testing::test_seed())));
    for (std::string line; std::getline(lines, line);) names_.push_back(line);
  }
  TemporaryFolder folder_;
  std::vector<std::string> names_;
};

nn::LoadedModel load(const std::string& path, Execution execution = Execution::expanded) { return models::Loader().load(path, execution); }

Tensor logits(const nn::Model& model, const std::vector<int32_t>& tokens) {
  const at::NoGradGuard no_grad;
  return model.forward(nn::Batch::single(tokens, nullptr)).logits;
}

std::unique_ptr<Adapter> attach(nn::Model& model, const std::string& step, uint64_t seed = 1) {
  const StepText text = parse_step(step);
  const AdapterRow& row = adapter_table().at(text.id);
  return row.function(model, Options(row.id, row.options, text.options), {.seed = seed});
}

// It stands before the text and has no place in the weights.
bool is_soft_prompt(const Adapter& adapter) { return io::is_soft_prompt(adapter.config().type); }

// All rows that leave the weights as they are, with options that suit any model.
std::vector<std::string> steps_beside_the_weights() {
  std::vector<std::string> steps;
  for (const AdapterRow& row : adapter_table().rows()) {
    if (row.id != "loftq" && row.id != "qlora") steps.push_back(row.id == "qa-lora" ? "qa-lora:group=8" : row.id);
  }
  return steps;
}

// As training leaves them: none of the tensors at its first value.
void disturb(Adapter& adapter) {
  const at::NoGradGuard no_grad;
  for (train::Parameter& parameter : adapter.parameters()) parameter.tensor.add_(at::randn(parameter.tensor.sizes()), 0.1);
}

TEST(LoadAdapter, ComputesWhatPeftComputes) {
  for (const std::string& name : PeftAdapters::get().names()) {
    SCOPED_TRACE(name);
    const auto expected = PeftAdapters::get().expected(name);
    const nn::LoadedModel loaded = load(PeftAdapters::get().base(name));
    const std::vector<int32_t> tokens = models::ids_of(expected.at("tokens"));
    const Tensor before = logits(*loaded.model, tokens);
    const auto adapter = load_adapter(*loaded.model, PeftAdapters::get().path(name));
    EXPECT_LT(relative_difference(logits(*loaded.model, tokens), expected.at("logits")), kRounding);
    EXPECT_GT(relative_difference(before, expected.at("logits")), 100 * kRounding) << "the adapter must make a difference";
    adapter->detach();
    EXPECT_TRUE(at::equal(logits(*loaded.model, tokens), before));
  }
}

TEST(LoadAdapter, GradientsAreThoseOfPeftByName) {
  for (const std::string& name : PeftAdapters::get().names()) {
    SCOPED_TRACE(name);
    const auto expected = PeftAdapters::get().expected(name);
    const nn::LoadedModel loaded = load(PeftAdapters::get().base(name));
    const auto adapter = load_adapter(*loaded.model, PeftAdapters::get().path(name));
    const Tensor ids = expected.at("tokens");
    const Tensor out = loaded.model->forward(nn::Batch::single(models::ids_of(ids), nullptr)).logits;
    at::cross_entropy_loss(out.slice(0, 0, -1), ids.slice(0, 1)).backward();
    double largest = 0;
    for (const auto& [key, gradient] : expected) {
      if (key.starts_with("grad.")) largest = std::max(largest, gradient.norm().item<double>());
    }
    size_t compared = 0;
    for (const train::Parameter& parameter : adapter->parameters()) {
      const std::string key = (is_soft_prompt(*adapter) ? "grad." : "grad.base_model.model.") + parameter.name;
      ASSERT_TRUE(expected.contains(key)) << key;
      const Tensor& want = expected.at(key);
      ++compared;
      if (want.numel() == 0) continue;  // a module without a rank
      // Those of queries and keys are small differences of larger numbers, hence the largest of all.
      EXPECT_LT((parameter.tensor.grad() - want).norm().item<double>(), 1e-5 * std::max(want.norm().item<double>(), 0.3 * largest)) << key;
    }
    EXPECT_EQ(compared + 2, expected.size());
    loaded.model->for_each_tensor([&](const std::string& tensor, Tensor& value) {
      if (tensor.find("lora_") == tensor.npos && tensor.find("ia3_") == tensor.npos && tensor.find("vera_") == tensor.npos) {
        EXPECT_FALSE(value.grad().defined()) << tensor;
      }
    });
  }
}

TEST(Adapter, PeftReadsWhatIsSaved) {
  const TemporaryFolder folder;
  std::vector<std::string> names;
  std::vector<Tensor> ours;
  std::string arguments;
  std::vector<std::string> steps = {"prefix-tuning:num_virtual_tokens=3,prefix_projection=false", "adalora:init_r=3,target_r=3,alpha=5"};
  for (const AdapterRow& row : adapter_table().rows()) {
    const bool of_peft =
        row.id != "bottleneck-adapter" && row.id != "loftq" && row.id != "qa-lora" && row.id != "qlora";  // that it does not have, or for other weights
    if (of_peft) steps.push_back(row.id);
  }
  const auto save = [&](const std::string& name, const std::string& base, Adapter& adapter, const nn::Model& model) {
    const std::vector<int32_t> tokens = testing::random_tokens(20, model.spec.vocab);
    adapter.save(folder / name, base);
    models::write_tokens(folder / (name + ".tokens"), tokens);
    ours.push_back(logits(model, tokens));
    names.push_back(name);
    arguments += fmt::format("{} {} {} {} ", base, folder / name, folder / (name + ".tokens"), folder / (name + ".logits"));
  };
  at::manual_seed(testing::test_seed());
  for (const std::string& name : PeftAdapters::get().names()) {
    const nn::LoadedModel loaded = load(PeftAdapters::get().base(name));
    const auto adapter = load_adapter(*loaded.model, PeftAdapters::get().path(name));
    disturb(*adapter);
    save(name, PeftAdapters::get().base(name), *adapter, *loaded.model);
  }
  for (const std::string& step : steps) {
    const std::string base = PeftAdapters::get().base("base");
    const nn::LoadedModel loaded = load(base);
    const auto adapter = attach(*loaded.model, step);
    if (adapter->step_hook()) adapter->step_hook()->begin(10);
    disturb(*adapter);
    save("new-" + step, base, *adapter, *loaded.model);
  }
  io::run_oracle("check_peft.py", arguments);
  for (size_t i = 0; i < names.size(); ++i) {
    EXPECT_LT(relative_difference(ours[i], read_tensors(folder / (names[i] + ".logits")).at("logits")), kRounding) << names[i];
  }
}

TEST(Adapter, MergedComputesAsUnmerged) {
  for (const std::string& name : PeftAdapters::get().names()) {
    SCOPED_TRACE(name);
    const nn::LoadedModel loaded = load(PeftAdapters::get().base(name));
    const std::vector<int32_t> tokens = models::ids_of(PeftAdapters::get().expected(name).at("tokens"));
    const auto adapter = load_adapter(*loaded.model, PeftAdapters::get().path(name));
    const Tensor unmerged = logits(*loaded.model, tokens);
    if (is_soft_prompt(*adapter)) continue;  // refused, as another test shows
    adapter->merge(std::nullopt);
    loaded.model->set_execution(Execution::expanded);
    EXPECT_LT(relative_difference(logits(*loaded.model, tokens), unmerged), kRounding);
    for (nn::Linear* linear : all_linears(*loaded.model)) EXPECT_EQ(linear->describe(), "F32");
    EXPECT_TRUE(adapter->parameters().empty());
  }
}

// A model whose Linears are a quantized matrix, a product of two, a sum and a plain one in turn.
nn::Model mixed_model() {
  nn::Model model = testing::tiny_model({.hidden = 64, .heads = 8, .intermediate = 96, .blocks = 3, .biases = true});
  const auto grouped = [](int64_t rows, int64_t columns) {
    return std::make_shared<nn::GroupedKind>(std::make_shared<formats::GroupedWeight>(testing::random_grouped(rows, columns, 4, 32, true)));
  };
  size_t count = 0;
  for (nn::Block& block : model.blocks) {
    for (nn::Linear* linear : block.linears()) {
      const int64_t out = linear->out_features(), in = linear->in_features();
      const size_t way = count++ % 4;
      if (way == 0) linear->replace(grouped(out, in));
      if (way == 1) linear->replace(std::make_shared<nn::LowRankKind>(grouped(32, in), grouped(out, 32)));
      if (way == 2) linear->replace({grouped(out, in), grouped(out, in)});
    }
  }
  return model;
}

TEST(Adapter, DetachingRestoresAnyModelToTheBit) {
  at::manual_seed(testing::test_seed());
  for (const std::string& step : steps_beside_the_weights()) {
    for (const Execution execution : {Execution::stored, Execution::expanded, Execution::packed}) {
      nn::Model model = mixed_model();
      model.set_execution(execution);
      const std::vector<int32_t> tokens = testing::random_tokens(17, model.spec.vocab);
      const Tensor before = logits(model, tokens);
      const auto adapter = attach(model, step);
      model.set_execution(execution);
      if (!is_soft_prompt(*adapter)) {
        EXPECT_LT(relative_difference(logits(model, tokens), before), kRounding) << step << ": a new adapter changes nothing";
      }
      disturb(*adapter);
      model.set_execution(execution);
      EXPECT_GT(relative_difference(logits(model, tokens), before), 1e-3) << step;
      adapter->detach();
      EXPECT_TRUE(at::equal(logits(model, tokens), before)) << step;
    }
  }
}

TEST(Adapter, ServingDoesNotDependOnWhoSharesTheBatchAndStaysNearTheExpandedModel) {
  at::manual_seed(testing::test_seed());
  const at::NoGradGuard no_grad;
  for (const std::string& step : steps_beside_the_weights()) {
    nn::Model model = mixed_model();
    const auto adapter = attach(model, step);
    disturb(*adapter);
    model.set_execution(Execution::expanded);
    std::vector<int32_t> a = testing::random_tokens(23, model.spec.vocab), b = testing::random_tokens(40, model.spec.vocab);
    const Tensor exact = logits(model, a);
    for (std::vector<int32_t>* tokens : {&a, &b}) {  // states begin with them
      const std::vector<int32_t> first = model.virtual_ids();
      tokens->insert(tokens->begin(), first.begin(), first.end());
    }
    const int64_t before = model.virtual_tokens.count;
    model.set_execution(Execution::packed);
    nn::SequenceState alone(model.spec, nn::CacheType::f32), beside(alone), other_one(alone);
    std::vector<Tensor> single, shared;
    // The prompt but its last three tokens, then one token after the other; the other sequence reads and decodes beside it.
    const size_t prompt = static_cast<size_t>(before) + 20;
    for (size_t begin = 0, count = prompt; begin < a.size(); begin += count, count = 1) {
      const std::span<const int32_t> part = std::span(a).subspan(begin, count), other = std::span(b).subspan(begin, count == prompt ? prompt + 15 : 1);
      single.push_back(model.forward(nn::Batch::single(part, &alone)).logits);
      nn::Batch batch{{other.begin(), other.end()}, {{0, std::ssize(other), &other_one}, {std::ssize(other), std::ssize(part), &beside}}};
      batch.tokens.insert(batch.tokens.end(), part.begin(), part.end());
      shared.push_back(model.forward(batch).logits.narrow(0, std::ssize(other), std::ssize(part)));
    }
    EXPECT_TRUE(at::equal(at::cat(single), at::cat(shared))) << step;
    const Tensor of_text = at::cat(single).slice(0, before);
    const double error = ((of_text - exact).norm() / exact.norm()).item<double>();
    EXPECT_LT(error, 0.1) << step << ": 8-bit activations, 0.017 to 0.055 in 240 draws";
  }
}

TEST(Adapter, EncodedWeightsAreMergedIntoFloatsOnlyWhenAskedFor) {
  at::manual_seed(testing::test_seed());
  for (const std::string& step : steps_beside_the_weights()) {
    nn::Model model = mixed_model();
    const std::vector<int32_t> tokens = testing::random_tokens(17, model.spec.vocab);
    const auto adapter = attach(model, step);
    disturb(*adapter);
    const Tensor unmerged = logits(model, tokens);
    EXPECT_THAT(outcome_of([&] { adapter->merge(std::nullopt); }), ::testing::StartsWith("unsupported"));
    EXPECT_TRUE(at::equal(logits(model, tokens), unmerged)) << "refused before anything has changed";
    if (step == "bottleneck-adapter" || is_soft_prompt(*adapter)) {
      EXPECT_THAT(outcome_of([&] { adapter->merge(at::kFloat); }), ::testing::HasSubstr("is no matrix"));
      continue;
    }
    adapter->merge(at::kFloat);
    EXPECT_LT(relative_difference(logits(model, tokens), unmerged), kRounding) << step;
  }
}

TEST(Lora, TwoAddUpAndLeaveInTheReverseOrder) {
  at::manual_seed(testing::test_seed());
  nn::Model model = mixed_model();
  const std::vector<int32_t> tokens = testing::random_tokens(17, model.spec.vocab);
  const Tensor before = logits(model, tokens);
  const auto first = attach(model, "lora:r=2,target=q_proj+down_proj"), second = attach(model, "lora:r=3,target=q_proj", 2);
  disturb(*first);
  disturb(*second);
  EXPECT_EQ(outcome_of([&] { first->detach(); }).substr(0, 8), "internal");
  EXPECT_THAT(outcome_of([&] { attach(model, "dora:target=q_proj"); }), ::testing::StartsWith("unsupported"));
  second->detach();
  first->detach();
  EXPECT_TRUE(at::equal(logits(model, tokens), before));
}

TEST(Lora, ScaledAtLoadingIsTheScaledChangeAndIsSavedSo) {
  const std::string name = "base_lora_patterns";
  const nn::LoadedModel loaded = load(PeftAdapters::get().base(name));
  nn::Linear& linear = loaded.model->blocks[1].value;
  const Tensor base = linear.dense().clone();
  const TemporaryFolder folder;
  const auto change = [&](const std::string& path, double scale) {
    const auto adapter = load_adapter(*loaded.model, path, scale);
    const Tensor result = (linear.dense() - base).detach();
    if (scale == 2.5) adapter->save(folder / "scaled");
    adapter->detach();
    return result;
  };
  const Tensor once = change(PeftAdapters::get().path(name), 1);
  EXPECT_LT(relative_difference(change(PeftAdapters::get().path(name), 2.5), 2.5 * once), 1e-5);
  EXPECT_LT(relative_difference(change(folder / "scaled", 1), 2.5 * once), 1e-5);
  EXPECT_THAT(outcome_of([&] { load_adapter(*loaded.model, PeftAdapters::get().path("base_dora"), 2); }), ::testing::StartsWith("unsupported"));
}

TEST(Lora, TheSameSeedDrawsTheSameAdapterAndItsMasks) {
  nn::Model model = mixed_model();
  const std::vector<int32_t> tokens = testing::random_tokens(17, model.spec.vocab);
  std::vector<Tensor> results;
  for (const uint64_t seed : {5, 5, 6}) {
    const auto adapter = attach(model, "lora:dropout=0.5", seed);
    at::manual_seed(seed);
    for (train::Parameter& parameter : adapter->parameters()) {
      const at::NoGradGuard no_grad;
      parameter.tensor.add_(0.1);
    }
    adapter->set_training(true);
    const Tensor state = adapter->generator_state();
    results.push_back(logits(model, tokens));
    EXPECT_FALSE(at::equal(logits(model, tokens), results.back())) << "masks go on";
    adapter->set_generator_state(state);
    EXPECT_TRUE(at::equal(logits(model, tokens), results.back()));
    adapter->detach();
  }
  EXPECT_TRUE(at::equal(results[0], results[1]));
  EXPECT_FALSE(at::equal(results[0], results[2]));
}

TEST(Lora, TargetsAreNamesEndsOrAPatternAndAWrongOneIsNamed) {
  nn::Model model = mixed_model();
  const auto modules = [&](const std::string& target) {
    const auto adapter = attach(model, "lora:r=1,target=" + target);
    const size_t count = adapter->parameters().size() / 2;
    adapter->detach();
    return count;
  };
  EXPECT_EQ(modules("all-linear"), 21u);
  EXPECT_EQ(modules("q_proj+v_proj"), 6u);
  EXPECT_EQ(modules("model.layers.1.mlp.up_proj"), 1u);
  EXPECT_EQ(modules("lm_head"), 1u);
  EXPECT_EQ(modules(R"(re:.*\.[02]\.mlp\..*)"), 6u);
  EXPECT_THAT(outcome_of([&] { modules("q_porj"); }), ::testing::AllOf(::testing::StartsWith("invalid input"), ::testing::HasSubstr("q_proj")));
  EXPECT_THAT(outcome_of([&] { modules("+"); }), ::testing::StartsWith("invalid input"));
}

TEST(Lora, ATiedHeadIsUntiedByMerging) {
  at::manual_seed(testing::test_seed());
  nn::Model model = testing::tiny_model();
  const std::vector<int32_t> tokens = testing::random_tokens(17, model.spec.vocab);
  const auto adapter = attach(model, "lora:target=lm_head");
  disturb(*adapter);
  const Tensor unmerged = logits(model, tokens), embedding = model.embedding->dense().clone();
  adapter->merge(std::nullopt);
  EXPECT_FALSE(model.spec.tied_embeddings);
  EXPECT_TRUE(at::equal(model.embedding->dense(), embedding));
  EXPECT_LT(relative_difference(logits(model, tokens), unmerged), kRounding);
}

TEST(LoraFa, LeavesAAsItWasDrawn) {
  nn::Model model = mixed_model();
  const auto adapter = attach(model, "lora-fa:r=2");
  size_t tensors = 0;
  adapter->for_each_tensor([&](const std::string& name, Tensor& tensor) {
    EXPECT_EQ(tensor.requires_grad(), name.ends_with(".lora_B.weight")) << name;
    ++tensors;
  });
  EXPECT_EQ(adapter->parameters().size() * 2, tensors);
}

TEST(LoraPlus, GivesBItsOwnLearningRate) {
  nn::Model model = mixed_model();
  const auto adapter = attach(model, "lora-plus:ratio=5");
  for (const train::Parameter& parameter : adapter->parameters()) {
    EXPECT_EQ(parameter.learning_rate_scale, parameter.name.ends_with(".lora_B.weight") ? 5 : 1) << parameter.name;
    EXPECT_TRUE(parameter.decays);
  }
}

TEST(Dora, MagnitudesBeginAsTheNormsOfTheRowsAndDoNotDecay) {
  nn::Model model = testing::tiny_model();
  const auto adapter = attach(model, "dora:target=q_proj");
  for (const train::Parameter& parameter : adapter->parameters()) EXPECT_EQ(parameter.decays, !parameter.name.ends_with("magnitude_vector"));
  adapter->detach();
  const Tensor norms = model.blocks[0].query.dense().norm(2, {1});
  const auto again = attach(model, "dora:target=q_proj");
  again->for_each_tensor([&](const std::string& name, Tensor& tensor) {
    if (name == "model.layers.0.self_attn.q_proj.lora_magnitude_vector") {
      EXPECT_TRUE(at::equal(tensor.detach(), norms));
    }
  });
}

TEST(Ia3, TrainsAVectorForEachModule) {
  nn::Model model = testing::tiny_model();
  const auto adapter = attach(model, "ia3");
  EXPECT_EQ(adapter->trainable_parameters(), 2u * (8 + 8 + 72));
}

TEST(Vera, TrainsTwoVectorsForEachModule) {
  nn::Model model = testing::tiny_model();
  const auto adapter = attach(model, "vera:r=6,target=k_proj+up_proj");
  EXPECT_EQ(adapter->trainable_parameters(), 2u * (6 + 8 + 6 + 72));
}

TEST(QaLora, AddsWhatItAddsInPeft) {
  at::manual_seed(testing::test_seed());
  const TemporaryFolder folder;
  const std::map<std::string, Tensor> given = {{"x", at::randn({5, 48})}, {"a", at::randn({3, 6})}, {"b", at::randn({7, 3})}};
  train::write_tensors(folder / "in", given);
  io::run_oracle("run_quantized_lora.py", fmt::format("qalora {} {} 0.7 8", folder / "in", folder / "out"));
  const nn::LoraKind kind(given.at("a"), given.at("b"), 0.7, nullptr, 8);
  EXPECT_LT(relative_difference(kind.forward(nn::Activation(given.at("x"))), read_tensors(folder / "out").at("delta")), 1e-5);
}

nn::Model grouped_model(bool symmetric) {
  nn::Model model = testing::tiny_model({.hidden = 64, .heads = 8, .intermediate = 96, .blocks = 2});
  for (nn::Block& block : model.blocks) {
    for (nn::Linear* linear : block.linears())
      linear->replace(std::make_shared<nn::GroupedKind>(
          std::make_shared<formats::GroupedWeight>(testing::random_grouped(linear->out_features(), linear->in_features(), 4, 16, symmetric))));
  }
  return model;
}

TEST(QaLora, MergedItIsAsQuantizedAsBeforeAndComputesTheSame) {
  at::manual_seed(testing::test_seed());
  for (const bool symmetric : {false, true}) {
    for (const char* step : {"qa-lora:r=3", "qa-lora:r=3,group=32"}) {
      nn::Model model = grouped_model(symmetric);
      const std::vector<int32_t> tokens = testing::random_tokens(17, model.spec.vocab);
      const Tensor before = logits(model, tokens);
      const auto adapter = attach(model, step);
      disturb(*adapter);
      const Tensor unmerged = logits(model, tokens);
      EXPECT_GT(relative_difference(unmerged, before), 100 * kRounding);
      const TemporaryFolder folder;
      adapter->save(folder / "a");
      adapter->merge(std::nullopt);
      EXPECT_LT(relative_difference(logits(model, tokens), unmerged), kRounding) << step;
      for (const nn::Linear* linear : all_linears(model)) {
        if (linear != &model.head) {
          EXPECT_THAT(linear->describe(), ::testing::HasSubstr("float zeros"));
        }
      }
      load_adapter(model, folder / "a", -1)->merge(std::nullopt);
      EXPECT_LT(relative_difference(logits(model, tokens), before), kRounding) << "taken out again";
    }
  }
  nn::Model model = grouped_model(false), plain = testing::tiny_model();
  attach(model, "qa-lora:group=8")->merge(at::kFloat);
  EXPECT_EQ(model.blocks[0].query.describe(), "F32") << "what is pooled in parts of a group has no zero point";
  EXPECT_THAT(outcome_of([&] { attach(plain, "qa-lora"); }), ::testing::AllOf(::testing::StartsWith("unsupported"), ::testing::HasSubstr("rtn")));
  EXPECT_THAT(outcome_of([&] { attach(plain, "qa-lora:group=7"); }), ::testing::StartsWith("invalid input"));
}

TEST(LoftQ, DecomposesAsPeftDoesAndLosesLessThanEitherAlone) {
  at::manual_seed(testing::test_seed());
  const TemporaryFolder folder;
  for (const int bits : {2, 3, 4}) {
    for (const int iterations : {1, 5}) {
      nn::Model model = testing::tiny_model({.hidden = 64, .heads = 8, .intermediate = 96, .blocks = 1});
      std::map<std::string, Tensor> weights;
      for (nn::Linear* linear : model.blocks[0].linears()) weights[linear->name()] = linear->dense().detach().clone();
      train::write_tensors(folder / "in", weights);
      io::run_oracle("run_quantized_lora.py", fmt::format("loftq {} {} 6 {} 32 {}", folder / "in", folder / "out", bits, iterations));
      const auto expected = read_tensors(folder / "out");
      int saved = 0;
      const AdapterRow& row = adapter_table().at("loftq");
      const StepText text = parse_step(fmt::format("loftq:bits={},group=32,r=6,alpha=3,iterations={}", bits, iterations));
      const auto adapter = row.function(model, Options(row.id, row.options, text.options), {.save_base = [&] {
                                          ++saved;
                                          EXPECT_EQ(model.blocks[0].query.kinds().size(), 1u) << "without the adapter";
                                          return std::string("the/base");
                                        }});
      EXPECT_EQ(saved, 1);
      EXPECT_EQ(adapter->config().base_model, "the/base");
      for (nn::Linear* linear : model.blocks[0].linears()) {
        const Tensor& weight = weights.at(linear->name());
        const auto of = [&](const char* part) { return expected.at(linear->name() + part); };
        const Tensor whole = of(".quantized") + at::matmul(of(".b"), of(".a"));
        const double loss = (linear->dense() - weight).norm().item<double>(), want = (whole - weight).norm().item<double>();
        EXPECT_NEAR(loss, want, 0.02 * want) << linear->name() << " " << bits << " bits";
        if (iterations == 1) {
          EXPECT_LT(relative_difference(linear->dense().detach(), whole), 1e-3) << linear->name();
        }
        const Tensor rounded = chain::round_to_grid(weight, {}, {.bits = bits, .group = 32}).decode();
        EXPECT_LT(loss, 0.95 * (rounded - weight).norm().item<double>()) << "what LoRA begins with beside rounded weights";
      }
    }
  }
}

// Of a projection, by autograd through its definition and the gradient of the tables that it gives, which peft's are compared with above.
TEST(PrefixTuning, GradientsGoThroughTheProjection) {
  at::manual_seed(testing::test_seed());
  nn::Model model = testing::tiny_model();
  const std::vector<int32_t> tokens = testing::random_tokens(17, model.spec.vocab);
  const Tensor weights = at::randn({17, model.spec.vocab});
  const auto gradients = [&](Adapter& adapter) {
    (model.forward(nn::Batch::single(tokens, nullptr)).logits * weights).sum().backward();
    return adapter.parameters();
  };
  const TemporaryFolder folder;
  const auto projected = attach(model, "prefix-tuning:num_virtual_tokens=3,encoder_hidden_size=10");
  projected->save(folder / "a");
  const std::vector<train::Parameter> ours = gradients(*projected);
  projected->detach();
  const auto flat = load_adapter(model, folder / "a");
  const Tensor of_table = gradients(*flat).at(0).tensor.grad();
  flat->detach();
  std::vector<Tensor> p;
  for (const train::Parameter& parameter : ours) p.push_back(parameter.tensor.detach().clone().requires_grad_());
  const Tensor table = at::matmul(at::tanh(at::matmul(p[0], p[1].t()) + p[2]), p[3].t()) + p[4];
  EXPECT_EQ(table.sizes(), of_table.sizes());
  (table * of_table).sum().backward();
  for (size_t i = 0; i < ours.size(); ++i) EXPECT_LT(relative_difference(ours[i].tensor.grad(), p[i].grad()), 1e-4) << ours[i].name;
}

TEST(PromptTuning, BeginsAsTokensOfATextOrOfTheVocabularyAndTakesRoomInTheContext) {
  const nn::LoadedModel loaded = load(models::TinyModels::get().path("llama"));
  nn::Model& model = *loaded.model;
  const AdapterRow& row = adapter_table().at("prompt-tuning");
  const auto make = [&](const std::string& step, const text::Tokenizer* tokenizer) {
    return row.function(model, Options(row.id, row.options, parse_step(step).options), {.seed = 3, .tokenizer = tokenizer});
  };
  const std::vector<int32_t> ids = loaded.tokenizer->encode("the cat", {.add_special = true});
  auto adapter = make("prompt-tuning:num_virtual_tokens=9,init=text,init_text=the cat", loaded.tokenizer.get());
  const Tensor rows = adapter->parameters().at(0).tensor.detach().clone();
  adapter->detach();
  for (int64_t i = 0; i < 9; ++i) {
    const int32_t id = ids[static_cast<size_t>(i) % ids.size()];
    EXPECT_TRUE(at::equal(rows[i], model.embed({&id, 1})[0].to(at::kFloat))) << i;
  }
  EXPECT_THAT(outcome_of([&] { make("prompt-tuning:init=text,init_text=the cat", nullptr); }), ::testing::StartsWith("invalid input"));
  EXPECT_THAT(outcome_of([&] { make("prompt-tuning:init_text=the cat", loaded.tokenizer.get()); }), ::testing::HasSubstr("init=text"));
  EXPECT_THAT(outcome_of([&] { make(fmt::format("prompt-tuning:num_virtual_tokens={}", model.spec.context_length), nullptr); }),
              ::testing::HasSubstr("no room"));
  adapter = make("prompt-tuning:num_virtual_tokens=4", nullptr);
  EXPECT_EQ(adapter->trainable_parameters(), static_cast<uint64_t>(4 * model.spec.hidden));
  EXPECT_THAT(outcome_of([&] { make("prompt-tuning", nullptr); }), ::testing::HasSubstr("one goes at a time"));
}

TEST(BottleneckAdapter, ComesBackFromItsFileAsItWas) {
  at::manual_seed(testing::test_seed());
  const TemporaryFolder folder;
  for (const char* step : {"bottleneck-adapter:size=3", "bottleneck-adapter:size=3,activation=gelu,scale=0.5,target=up_proj+down_proj",
                           "bottleneck-adapter:parallel=true,activation=silu,target=all-linear"}) {
    nn::Model model = mixed_model();
    const std::vector<int32_t> tokens = testing::random_tokens(17, model.spec.vocab);
    const auto adapter = attach(model, step);
    disturb(*adapter);
    const Tensor tuned = logits(model, tokens);
    adapter->save(folder / "a", {}, true);
    adapter->detach();
    EXPECT_FALSE(at::equal(logits(model, tokens), tuned));
    const auto again = load_adapter(model, folder / "a");
    EXPECT_TRUE(at::equal(logits(model, tokens), tuned)) << step;
  }
}

TEST(AdapterTable, RowsAreWhole) {
  for (const AdapterRow& row : adapter_table().rows()) {
    EXPECT_EQ(row.leaf, "tune");
    EXPECT_NE(row.claims.empty(), row.reference.empty()) << row.id;
    EXPECT_NE(row.function, nullptr) << row.id;
    EXPECT_NO_THROW(Options(row.id, row.options, {})) << row.id;
  }
}

TEST(Adapters, FloatingPointOperationsOfALoraAreThoseThatTorchCounts) {
  const std::string path = models::TinyModels::get().path("llama");
  const nn::LoadedModel loaded = load(path);
  const auto adapter = attach(*loaded.model, "lora:r=3");
  const double counted = train::training_flops(*loaded.model, adapter->parameters()).of(17, 17);
  const double torch = std::stod(io::run_oracle("count_flops.py", path + " 17 3"));
  EXPECT_NEAR(counted, torch, 2e-3 * torch);
}

}  // namespace
}  // namespace frugal::tune
