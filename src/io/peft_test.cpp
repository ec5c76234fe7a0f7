// adapter_config.json and the files beside it; G<n>: section G of the torture list.
#include "io/peft.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "io/safetensors.h"
#include "io/test_tools.h"

namespace frugal::io {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// As peft 0.21 writes it.
const char* const kWhole = R"({
  "alora_invocation_tokens": null, "alpha_pattern": {"v_proj": 11}, "arrow_config": null,
  "auto_mapping": {"base_model_class": "LlamaForCausalLM", "parent_library": "transformers.models.llama.modeling_llama"},
  "base_model_name_or_path": "some/base", "bias": "none", "corda_config": null, "ensure_weight_tying": false, "eva_config": null,
  "exclude_modules": ["model.layers.0.mlp.down_proj"], "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true,
  "kasa_config": null, "layer_replication": null, "layers_pattern": null, "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 6,
  "lora_bias": false, "lora_dropout": 0.25, "lora_ga_config": null, "megatron_config": null, "megatron_core": "megatron.core",
  "modules_to_save": null, "monteclora_config": null, "peft_type": "LORA", "peft_version": "0.21.2", "qalora_group_size": 16, "r": 3,
  "rank_pattern": {"down_proj": 1, "layers.1.self_attn.q_proj": 7}, "revision": null, "target_modules": ["q_proj", "v_proj", "down_proj"],
  "target_parameters": null, "task_type": "CAUSAL_LM", "trainable_token_indices": null, "use_bdlora": null, "use_dora": false,
  "use_qalora": false, "use_rslora": true, "velora_config": null})";

Json least() { return {{"peft_type", "LORA"}, {"target_modules", {"q_proj"}}}; }

std::string outcome(const Json& config) {
  return outcome_of([&] { parse_peft_config(config, "config"); });
}

std::string outcome_with(const std::string& key, const Json& value) {
  Json config = least();
  config[key] = value;
  return outcome(config);
}

void write_adapter(const TemporaryFolder& folder, const Json& config, const std::string& tensor = "base_model.model.a.lora_A.weight") {
  folder.write("adapter_config.json", config.dump());
  write_safetensors(folder / "adapter_model.safetensors", {owned_tensor<float>(tensor, "F32", {2}, {1, 2})});
}

TEST(PeftConfig, ReadsWhatPeftWrites) {
  const PeftConfig config = parse_peft_config(parse_json(kWhole, "config"), "config");
  EXPECT_EQ(config.type, PeftType::lora);
  EXPECT_EQ(config.base_model, "some/base");
  EXPECT_EQ(config.rank, 3);
  EXPECT_EQ(config.alpha, 6);
  EXPECT_EQ(config.dropout, 0.25);
  EXPECT_TRUE(config.rslora);
  EXPECT_FALSE(config.dora);
  EXPECT_EQ(config.target_modules.names, (std::vector<std::string>{"q_proj", "v_proj", "down_proj"}));
  EXPECT_EQ(config.exclude_modules.names, std::vector<std::string>{"model.layers.0.mlp.down_proj"});
  EXPECT_EQ(config.rank_pattern, (std::vector<std::pair<std::string, int64_t>>{{"down_proj", 1}, {"layers.1.self_attn.q_proj", 7}}));
  EXPECT_EQ(config.alpha_pattern, (std::vector<std::pair<std::string, double>>{{"v_proj", 11}}));
}

TEST(PeftConfig, NeedsTypeAndTargetsOnly) {
  const PeftConfig config = parse_peft_config(least(), "config");
  EXPECT_EQ(config.rank, 8);
  EXPECT_EQ(config.alpha, 8);
  EXPECT_EQ(config.dropout, 0);
  EXPECT_THAT(outcome(Json{{"target_modules", {"q_proj"}}}), StartsWith("corrupt file"));
  EXPECT_THAT(outcome(Json{{"peft_type", "LORA"}}), HasSubstr("config.target_modules"));
  EXPECT_THAT(outcome(Json::array()), StartsWith("corrupt file"));
}

TEST(PeftConfig, ComesBackAsItWasWritten) {
  std::vector<Json> configs = {parse_json(kWhole, "config"), least()};
  configs.push_back({{"peft_type", "LORA"}, {"target_modules", R"(.*\.q_proj)"}, {"exclude_modules", "model.*"}, {"lora_alpha", 0.5}});
  configs.push_back({{"peft_type", "LORA"}, {"target_modules", {"q"}}, {"layers_to_transform", 3}, {"layers_pattern", "layers"}, {"use_dora", true}});
  configs.push_back({{"peft_type", "IA3"}, {"target_modules", {"k", "w"}}, {"feedforward_modules", {"w"}}});
  configs.push_back({{"peft_type", "VERA"}, {"target_modules", "All-Linear"}, {"projection_prng_key", 7}, {"save_projection", false}});
  configs.push_back({{"peft_type", "LORA"}, {"target_modules", {"q"}}, {"use_qalora", true}, {"qalora_group_size", 32}});
  configs.push_back({{"peft_type", "ADALORA"},
                     {"target_modules", {"q"}},
                     {"init_r", 3},
                     {"target_r", 2},
                     {"tinit", 4},
                     {"tfinal", 5},
                     {"deltaT", 6},
                     {"total_step", 77},
                     {"beta1", 0.5},
                     {"orth_reg_weight", 0.25},
                     {"rank_pattern", {{"a.q.lora_E", {true, false, true}}}}});
  configs.push_back({{"peft_type", "PROMPT_TUNING"}, {"num_virtual_tokens", 4}, {"prompt_tuning_init", "TEXT"}, {"tokenizer_name_or_path", "t"}});
  configs.push_back({{"peft_type", "PREFIX_TUNING"}, {"num_virtual_tokens", 4}, {"prefix_projection", true}, {"encoder_hidden_size", 9}});
  configs.push_back({{"peft_type", "BOTTLENECK"}, {"target_modules", {"down_proj"}}, {"bottleneck_size", 3}, {"use_parallel_adapter", true}, {"scaling", 0.5}});
  for (const Json& json : configs) {
    const Json once = to_json(parse_peft_config(json, "config"));
    EXPECT_EQ(once, to_json(parse_peft_config(once, "config")));
    for (const char* key :
         {"peft_type", "r", "lora_alpha", "target_modules", "exclude_modules", "rank_pattern", "alpha_pattern", "use_dora", "use_rslora", "lora_dropout",
          "feedforward_modules", "projection_prng_key", "save_projection", "bottleneck_size", "use_parallel_adapter", "scaling"}) {
      if (json.contains(key) && json[key] != "All-Linear") {
        EXPECT_EQ(once[key], json[key]) << key;
      }
    }
  }
}

TEST(PeftConfig, G1_G4_NumbersOutOfRange) {
  for (const Json& r : {Json(0), Json(-1), Json(int64_t{1} << 31), Json(1.5), Json("8"), Json(true)}) {
    EXPECT_THAT(outcome_with("r", r), AllOf(StartsWith("corrupt file"), HasSubstr("config.r:"))) << r;
    EXPECT_THAT(outcome_with("rank_pattern", {{"q_proj", r}}), AllOf(StartsWith("corrupt file"), HasSubstr("config.rank_pattern.q_proj"))) << r;
  }
  for (const Json& alpha : {Json(1e38), Json(-1e38), Json("8"), Json(true)}) {
    EXPECT_THAT(outcome_with("lora_alpha", alpha), AllOf(StartsWith("corrupt file"), HasSubstr("config.lora_alpha"))) << alpha;
    EXPECT_THAT(outcome_with("alpha_pattern", {{"q_proj", alpha}}), StartsWith("corrupt file")) << alpha;
  }
  const TemporaryFolder folder;
  for (const char* text : {"NaN", "Infinity", "1e400"}) {
    folder.write("adapter_config.json", fmt::format(R"({{"peft_type":"LORA","target_modules":["q_proj"],"lora_alpha":{}}})", text));
    EXPECT_THAT(outcome_of([&] { read_peft(folder.path()); }), StartsWith("corrupt file")) << text;
  }
  for (const double dropout : {-0.1, 1.0, 2.0}) EXPECT_THAT(outcome_with("lora_dropout", dropout), HasSubstr("config.lora_dropout")) << dropout;
}

TEST(PeftConfig, G3_TargetsThatAreNone) {
  for (const Json& target : {Json(), Json(""), Json::array(), Json(3), Json(Json::object()), Json({"q_proj", ""}), Json({"q_proj", 1})}) {
    Json config = least();
    config["target_modules"] = target;
    EXPECT_THAT(outcome(config), AllOf(StartsWith("corrupt file"), HasSubstr("target_modules"))) << target;
  }
  EXPECT_EQ(outcome_with("target_modules", "all-linear"), "ok");
  EXPECT_EQ(outcome_with("target_modules", std::vector<std::string>(100'000, "q_proj")), "ok");
  EXPECT_THAT(outcome_with("target_modules", std::vector<std::string>(1'000'001, "q")), HasSubstr("at most"));
}

TEST(PeftConfig, G10_WhatCannotBeDoneIsNamed) {
  for (const char* type : {"LOHA", "P_TUNING", "lora", ""}) {
    Json config = least();
    config["peft_type"] = type;
    EXPECT_THAT(outcome(config), AllOf(StartsWith("unsupported"), HasSubstr("peft_type"))) << type;
  }
  const std::vector<std::pair<std::string, Json>> fields = {{"modules_to_save", {"lm_head"}},
                                                            {"bias", "all"},
                                                            {"bias", "lora_only"},
                                                            {"lora_bias", true},
                                                            {"layer_replication", {{0, 4}, {2, 5}}},
                                                            {"target_parameters", {"mlp.experts"}},
                                                            {"trainable_token_indices", {0, 1}},
                                                            {"alora_invocation_tokens", {1}},
                                                            {"init_lora_weights", "pissa_niter_4"},
                                                            {"init_lora_weights", "loftq"},
                                                            {"layers_pattern", "h.*"},
                                                            {"a_field_of_next_year", 1}};
  for (const auto& [key, value] : fields) EXPECT_THAT(outcome_with(key, value), AllOf(StartsWith("unsupported"), HasSubstr("config." + key))) << value;
  EXPECT_THAT(outcome(Json{{"peft_type", "BOTTLENECK"}, {"target_modules", {"a"}}, {"scaling", "learned"}}), StartsWith("unsupported"));
  EXPECT_THAT(outcome(Json{{"peft_type", "BOTTLENECK"}, {"target_modules", {"a"}}, {"non_linearity", "swish"}}), StartsWith("unsupported"));
  // What asks for nothing, and what no number depends on.
  for (const auto& [key, value] : std::vector<std::pair<std::string, Json>>{{"a_field_of_next_year", nullptr},
                                                                            {"enable_lora", nullptr},
                                                                            {"merge_weights", false},
                                                                            {"init_lora_weights", "gaussian"},
                                                                            {"revision", "main"},
                                                                            {"task_type", "SEQ_CLS"},
                                                                            {"fan_in_fan_out", true}})
    EXPECT_EQ(outcome_with(key, value), "ok") << key;
}

TEST(PeftDirectory, ReadsWhatWasWritten) {
  const TemporaryFolder folder;
  const PeftConfig config = parse_peft_config(parse_json(kWhole, "config"), "config");
  const auto tensors = [] {
    return std::vector{owned_tensor<float>("model.layers.0.self_attn.q_proj.lora_A.weight", "F32", {1, 2}, {1, 2}),
                       owned_tensor<float>("vera_A", "F32", {2}, {3, 4})};
  };
  write_peft(folder / "a", config, tensors(), false);
  const PeftAdapter adapter = read_peft(folder / "a");
  EXPECT_EQ(to_json(adapter.config), to_json(config));
  ASSERT_EQ(adapter.tensors.size(), 2u);
  EXPECT_EQ(adapter.tensors.at("vera_A").name, "base_model.vera_A");
  EXPECT_EQ(adapter.tensors.at("model.layers.0.self_attn.q_proj.lora_A.weight").name, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
  EXPECT_NE(outcome_of([&] { write_peft(folder / "a", config, tensors(), false); }), "ok") << "what is there is not replaced unasked";
  write_peft(folder / "a", config, tensors(), true);
  EXPECT_EQ(read_peft(folder / "a").tensors.size(), 2u);
}

TEST(PeftDirectory, G8_PicklesAreRefusedByTheirFirstBytes) {
  const TemporaryFolder folder;
  folder.write("adapter_config.json", least().dump());
  EXPECT_THAT(outcome_of([&] { read_peft(folder.path()); }), StartsWith("invalid input"));
  folder.write("adapter_model.bin", std::string("\x80\x02}q\x00.", 6));
  EXPECT_THAT(outcome_of([&] { read_peft(folder.path()); }), AllOf(StartsWith("unsupported"), HasSubstr("pickle")));
  for (const std::string& start : {std::string("\x80\x02}q\x00.", 6), std::string("PK\x03\x04") + "data.pkl"}) {
    folder.write("adapter_model.safetensors", start);
    EXPECT_THAT(outcome_of([&] { read_peft(folder.path()); }), AllOf(StartsWith("unsupported"), HasSubstr("pickle")));
  }
}

TEST(PeftDirectory, AHeaderWhoseLengthBeginsLikeAPickleIsNone) {
  const TemporaryFolder folder;
  folder.write("adapter_config.json", least().dump());
  std::string header = R"({"base_model.model.a.lora_A.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  header.resize(0x280, ' ');
  folder.write("adapter_model.safetensors", raw(uint64_t{0x280}) + header + raw(1.0f));
  EXPECT_EQ(outcome_of([&] { read_peft(folder.path()); }), "ok");
}

TEST(PeftDirectory, NamesAreInTheFormatsWords) {
  const TemporaryFolder folder;
  write_adapter(folder, least());
  EXPECT_EQ(outcome_of([&] { read_peft(folder.path()); }), "ok");
  for (const char* name : {"model.layers.0.lora_A.weight", "base_model.layers.0.lora_A.weight", "base_model.model"}) {
    write_adapter(folder, least(), name);
    EXPECT_THAT(outcome_of([&] { read_peft(folder.path()); }), AllOf(StartsWith("corrupt file"), HasSubstr(name)));
  }
  EXPECT_THAT(outcome_of([&] { read_peft(folder / "absent"); }), StartsWith("invalid input"));
}

}  // namespace
}  // namespace frugal::io
