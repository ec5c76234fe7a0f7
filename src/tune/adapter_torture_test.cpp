// Section G of the torture list: adapters that do not fit the model, by the ids of the rows. What the files alone show is in io/peft_test.cpp.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/process.h"
#include "io/safetensors.h"
#include "io/test_tools.h"
#include "tiny_model.h"
#include "tune/adapter.h"

namespace frugal::tune {
namespace {

using io::outcome_of;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using testing::TemporaryFolder;
using testing::tiny_model;

constexpr int64_t kHidden = 40, kRank = 3;  // of tiny_model()

struct Stored {
  std::vector<int64_t> shape;
  float value = 0.25;
};
using Tensors = std::map<std::string, Stored>;

Tensors fitting() {
  Tensors tensors;
  for (const int layer : {0, 1}) {
    const std::string module = fmt::format("model.layers.{}.self_attn.q_proj", layer);
    tensors[module + ".lora_A.weight"] = {{kRank, kHidden}};
    tensors[module + ".lora_B.weight"] = {{kHidden, kRank}};
  }
  return tensors;
}

Json config() { return {{"peft_type", "LORA"}, {"r", kRank}, {"target_modules", {"q_proj"}}}; }

void write(const TemporaryFolder& folder, const Json& config, const Tensors& tensors) {
  folder.write("adapter_config.json", config.dump());
  std::vector<io::TensorToWrite> written;
  for (const auto& [name, stored] : tensors) {
    int64_t count = 1;
    for (const int64_t size : stored.shape) count *= size;
    written.push_back(io::owned_tensor<float>("base_model.model." + name, "F32", stored.shape, std::vector<float>(static_cast<size_t>(count), stored.value)));
  }
  io::write_safetensors(folder / "adapter_model.safetensors", written);
}

// How loading ends; after an error the model must be as it was.
std::string outcome(const Json& config, const Tensors& tensors) {
  const TemporaryFolder folder;
  write(folder, config, tensors);
  nn::Model model = tiny_model();
  const std::vector<int32_t> tokens = testing::random_tokens(9, model.spec.vocab);
  const at::NoGradGuard no_grad;
  const auto logits = [&] { return model.forward(nn::Batch::single(tokens, nullptr)).logits; };
  const at::Tensor before = logits();
  const std::string result = outcome_of([&] { load_adapter(model, folder.path()); });
  EXPECT_EQ(at::equal(logits(), before), result != "ok") << result;
  return result;
}

TEST(AdapterTorture, TheWholeOneLoads) { EXPECT_EQ(outcome(config(), fitting()), "ok"); }

TEST(AdapterTorture, G1_G2_ShapesThatAreNotTheRanksOrAreTransposed) {
  for (const int64_t r : {1, 2, 4, 1000}) {
    Json changed = config();
    changed["r"] = r;
    EXPECT_THAT(outcome(changed, fitting()), AllOf(StartsWith("corrupt file"), HasSubstr("q_proj.lora_A.weight"), HasSubstr("shape"))) << r;
  }
  for (const char* part : {"lora_A", "lora_B"}) {
    Tensors tensors = fitting();
    Stored& stored = tensors[fmt::format("model.layers.1.self_attn.q_proj.{}.weight", part)];
    std::swap(stored.shape[0], stored.shape[1]);
    EXPECT_THAT(outcome(config(), tensors), AllOf(StartsWith("corrupt file"), HasSubstr(part), HasSubstr("transposed")));
    stored.shape = {kRank * kHidden};
    EXPECT_THAT(outcome(config(), tensors), AllOf(StartsWith("corrupt file"), HasSubstr(part)));
    stored.shape = {};
    EXPECT_THAT(outcome(config(), tensors), StartsWith("corrupt file"));
  }
}

TEST(AdapterTorture, SoftPromptsOfAnotherModelOrWithoutTheirTensor) {
  const auto outcome_of_prompt = [](const char* type, int64_t count, std::vector<int64_t> shape, const char* name = "prompt_embeddings") {
    const TemporaryFolder folder;
    folder.write("adapter_config.json", Json{{"peft_type", type}, {"num_virtual_tokens", count}}.dump());
    int64_t numbers = 1;
    for (const int64_t size : shape) numbers *= size;
    io::write_safetensors(folder / "adapter_model.safetensors",
                          {io::owned_tensor<float>(name, "F32", shape, std::vector<float>(static_cast<size_t>(numbers), 0.25))});
    nn::Model model = tiny_model();
    const std::string result = outcome_of([&] { load_adapter(model, folder.path()); });
    EXPECT_EQ(model.virtual_tokens.count, result == "ok" ? count : 0);
    return result;
  };
  const nn::BlockSpec spec = tiny_model().blocks[0].spec;
  const int64_t width = std::ssize(tiny_model().blocks) * 2 * spec.kv_heads * spec.head_dim;
  EXPECT_EQ(outcome_of_prompt("PROMPT_TUNING", 3, {3, kHidden}), "ok");
  EXPECT_EQ(outcome_of_prompt("PREFIX_TUNING", 3, {3, width}), "ok");
  EXPECT_THAT(outcome_of_prompt("PROMPT_TUNING", 3, {3, width}), AllOf(StartsWith("corrupt file"), HasSubstr("shape")));
  EXPECT_THAT(outcome_of_prompt("PREFIX_TUNING", 4, {3, width}), AllOf(StartsWith("corrupt file"), HasSubstr("shape")));
  EXPECT_THAT(outcome_of_prompt("PREFIX_TUNING", 0, {0, width}), StartsWith("corrupt file"));
  EXPECT_THAT(outcome_of_prompt("PROMPT_TUNING", 3, {3, kHidden}, "base_model.model.x.lora_A.weight"), AllOf(StartsWith("corrupt file"), HasSubstr("missing")));
  EXPECT_THAT(outcome_of_prompt("PROMPT_TUNING", 60000, {1, kHidden}), AllOf(StartsWith("invalid input"), HasSubstr("no room")));
}

TEST(AdapterTorture, G2_AWithoutBAndLayersThatAreNotThere) {
  for (const char* part : {"lora_A", "lora_B"}) {
    Tensors tensors = fitting();
    const std::string gone = fmt::format("model.layers.1.self_attn.q_proj.{}.weight", part);
    tensors.erase(gone);
    EXPECT_THAT(outcome(config(), tensors), AllOf(StartsWith("corrupt file"), HasSubstr(gone), HasSubstr("missing")));
  }
  for (const char* module : {"model.layers.999.self_attn.q_proj", "model.layers.0.self_attn.k_proj", "model.embed_tokens"}) {
    Tensors tensors = fitting();
    tensors[std::string(module) + ".lora_A.weight"] = {{kRank, kHidden}};
    EXPECT_THAT(outcome(config(), tensors), AllOf(StartsWith("corrupt file"), HasSubstr(module))) << "a tensor that would be ignored";
  }
}

TEST(AdapterTorture, G3_PatternsThatMayRunAwayAreRefused) {
  for (const char* regex : {"(a+)+", "(.*.*)*q_proj", "(a|a)*b", "(?R)", R"((.)\1)"}) {
    for (const char* key : {"target_modules", "exclude_modules"}) {
      Json changed = config();
      changed[key] = regex;
      EXPECT_THAT(outcome(changed, fitting()), AllOf(StartsWith("unsupported"), HasSubstr(key))) << regex;
    }
    Json changed = config();
    changed["rank_pattern"] = {{regex, 2}};
    EXPECT_THAT(outcome(changed, fitting()), AllOf(StartsWith("unsupported"), HasSubstr("rank_pattern"))) << regex;
  }
  Json changed = config();
  changed["target_modules"] = "(q_proj";
  EXPECT_THAT(outcome(changed, fitting()), StartsWith("corrupt file"));
  changed["target_modules"] = R"(^(?!.*vision).*\.(?:q_proj)$)";
  EXPECT_EQ(outcome(changed, fitting()), "ok");
  // 10^5 names take no time.
  std::vector<std::string> names;
  for (int i = 0; i < 100'000; ++i) names.push_back(fmt::format("x{}", i));
  names.push_back("q_proj");
  changed["target_modules"] = names;
  EXPECT_EQ(outcome(changed, fitting()), "ok");
}

TEST(AdapterTorture, G5_AdaptersOfAnotherModelAreRefused) {
  Tensors tensors = fitting();
  for (auto& [name, stored] : tensors) {
    for (int64_t& size : stored.shape) size = size == kHidden ? 48 : size;
  }
  EXPECT_THAT(outcome(config(), tensors), AllOf(StartsWith("corrupt file"), HasSubstr("[3, 48]"), HasSubstr("[3, 40]"), HasSubstr("another model")));
}

TEST(AdapterTorture, G6_AnAdapterThatNamesNoModuleIsRefused) {
  for (const Json& target : {Json({"query_key_value"}), Json("transformer\\..*"), Json({"q_pro"}), Json({"model"})}) {
    Json changed = config();
    changed["target_modules"] = target;
    EXPECT_THAT(outcome(changed, {}), AllOf(StartsWith("invalid input"), HasSubstr("target_modules"), HasSubstr("q_proj"))) << target;
  }
  Json changed = config();
  changed["layers_to_transform"] = {7};
  EXPECT_THAT(outcome(changed, {}), StartsWith("invalid input"));
  changed = config();
  changed["exclude_modules"] = {"self_attn.q_proj"};
  EXPECT_THAT(outcome(changed, {}), StartsWith("invalid input"));
}

TEST(AdapterTorture, G7_NumbersThatAreNotFiniteAreRefused) {
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const auto& [name, stored] : fitting()) {
      Tensors tensors = fitting();
      tensors[name].value = value;
      EXPECT_THAT(outcome(config(), tensors), AllOf(StartsWith("corrupt file"), HasSubstr(name), HasSubstr("finite")));
    }
  }
}

TEST(AdapterTorture, G10_WeightsAndEmbeddingsBesideTheAdapterAreNamed) {
  for (const char* name : {"lm_head.base_layer.weight", "model.embed_tokens.weight", "lm_head.weight", "model.embed_tokens.lora_embedding_A"}) {
    Tensors tensors = fitting();
    tensors[name] = {{kRank, kHidden}};
    EXPECT_THAT(outcome(config(), tensors), AllOf(StartsWith("unsupported"), HasSubstr(name)));
  }
}

TEST(AdapterTorture, G9_AThousandCyclesOfLoadAndDetachKeepNoMemory) {
  const TemporaryFolder folder;
  write(folder, config(), fitting());
  nn::Model model = tiny_model();
  const auto cycle = [&] { load_adapter(model, folder.path())->detach(); };
  for (int i = 0; i < 200; ++i) cycle();
  const uint64_t before = peak_rss_bytes();
  for (int i = 0; i < 1000; ++i) cycle();
  EXPECT_LT(peak_rss_bytes() - before, uint64_t{4} << 20);
  EXPECT_EQ(model.blocks[0].query.describe(), "F32");
}

}  // namespace
}  // namespace frugal::tune
