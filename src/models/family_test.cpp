// Configurations, good and bad, without weights.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "models/description.h"
#include "models/rope.h"

namespace frugal::models {
namespace {

Json small_llama() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"vocab_size", 100},
          {"hidden_size", 32},
          {"intermediate_size", 64},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"max_position_embeddings", 128},
          {"rms_norm_eps", 1e-5},
          {"hidden_act", "silu"},
          {"rope_theta", 10000.0}};
}

nn::ModelSpec spec_of(const Json& config) {
  const JsonObject object(config, "config.json");
  return family_of_config(object).from_config(object);
}

std::string error_of(const Json& config) {
  try {
    spec_of(config);
  } catch (const Error& error) {
    return std::string(to_string(error.kind())) + ": " + error.what();
  }
  return "ok";
}

TEST(Family, ReadsALlama) {
  const nn::ModelSpec spec = spec_of(small_llama());
  EXPECT_EQ(spec.family, "llama");
  ASSERT_EQ(spec.blocks.size(), 2u);
  EXPECT_EQ(spec.blocks[1].head_dim, 8);
  EXPECT_EQ(spec.blocks[1].state_slot, 1);
  EXPECT_FALSE(spec.tied_embeddings);
}

TEST(Family, WrongIntegersAreErrorsThatNameTheKey) {
  for (const char* key :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "max_position_embeddings"}) {
    for (const Json& value : {Json(0), Json(-1), Json(1.5), Json(uint64_t{1} << 63), Json("4096"), Json({1, 2})}) {
      Json config = small_llama();
      config[key] = value;
      EXPECT_THAT(error_of(config), testing::AllOf(testing::StartsWith("corrupt"), testing::HasSubstr(key))) << key << " " << value;
    }
  }
  for (const char* key : {"vocab_size", "hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size"}) {
    Json config = small_llama();
    config.erase(key);
    EXPECT_THAT(error_of(config), testing::HasSubstr(key));
  }
}

TEST(Family, SizesThatDoNotDivideAreErrors) {
  const auto with = [](const char* key, Json value) {
    Json config = small_llama();
    config[key] = std::move(value);
    return error_of(config);
  };
  EXPECT_THAT(with("hidden_size", 30), testing::HasSubstr("hidden_size"));
  EXPECT_THAT(with("num_key_value_heads", 3), testing::HasSubstr("num_key_value_heads"));
  EXPECT_THAT(with("num_key_value_heads", 8), testing::HasSubstr("num_key_value_heads"));
  EXPECT_THAT(with("head_dim", 0), testing::HasSubstr("head_dim"));
  EXPECT_THAT(with("head_dim", 7), testing::HasSubstr("odd"));
  EXPECT_THAT(with("rms_norm_eps", 0), testing::HasSubstr("rms_norm_eps"));
  EXPECT_THAT(with("rope_theta", 0), testing::HasSubstr("rope_theta"));
  EXPECT_THAT(with("hidden_act", "relu"), testing::StartsWith("unsupported"));
  EXPECT_THAT(with("model_type", "mamba"), testing::AllOf(testing::StartsWith("unsupported"), testing::HasSubstr("qwen3")));
}

TEST(Family, WrongRopeScalingsAreErrors) {
  const auto with = [](Json scaling) {
    Json config = small_llama();
    config["rope_scaling"] = std::move(scaling);
    return error_of(config);
  };
  EXPECT_THAT(with({{"rope_type", "spiral"}, {"factor", 2}}), testing::StartsWith("unsupported"));
  for (const Json& factor : {Json(0), Json(-1), Json(1e308), Json("2"), Json(nullptr)}) {
    EXPECT_THAT(with({{"rope_type", "linear"}, {"factor", factor}}), testing::HasSubstr("factor")) << factor;
  }
  EXPECT_THAT(with({{"rope_type", "longrope"}, {"short_factor", {1, 1, 1}}, {"long_factor", {1, 1, 1, 1}}}), testing::HasSubstr("short_factor"));
  EXPECT_THAT(with({{"rope_type", "llama3"}, {"factor", 8}, {"low_freq_factor", 4}, {"high_freq_factor", 4}}), testing::HasSubstr("high_freq_factor"));
  EXPECT_EQ(with({{"type", "linear"}, {"factor", 2}}), "ok");
}

TEST(Family, AnOldRopeScalingBesideNewRopeParametersCountsAsInTransformers) {
  Json config = small_llama();
  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 10000.0}};
  EXPECT_EQ(spec_of(config).blocks[0].rope.scaling, nn::RopeScaling::none);
  config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 4.0}};
  EXPECT_EQ(spec_of(config).blocks[0].rope.scaling, nn::RopeScaling::linear);
  EXPECT_EQ(spec_of(config).blocks[0].rope.factor, 4);
  config["rope_scaling"] = nullptr;
  EXPECT_EQ(spec_of(config).blocks[0].rope.scaling, nn::RopeScaling::none);
}

std::vector<Json> rope_scalings() {
  const Json four = {1.0, 1.5, 2.0, 3.25};
  return {{{"rope_type", "linear"}, {"factor", 2.5}},
          {{"rope_type", "dynamic"}, {"factor", 2.0}},
          {{"rope_type", "llama3"}, {"factor", 8.0}, {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 64}},
          {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32}, {"beta_fast", 16.0}, {"attention_factor", 1.25}},
          {{"rope_type", "yarn"}, {"factor", 4.0}, {"mscale", 0.7}, {"mscale_all_dim", 1.0}},
          {{"rope_type", "longrope"}, {"short_factor", four}, {"long_factor", {2.0, 3.0, 4.0, 5.0}}, {"original_max_position_embeddings", 32}}};
}

TEST(Family, ConfigsComeBackFromTheirWords) {
  for (const Json& scaling : rope_scalings()) {
    SCOPED_TRACE(scaling.dump());
    Json config = small_llama();
    config["rope_scaling"] = scaling;
    const nn::ModelSpec spec = spec_of(config);
    const nn::ModelSpec again = spec_of(config_of(spec));
    EXPECT_EQ(canonical(again.blocks[1].rope), canonical(spec.blocks[1].rope));
    if (scaling["rope_type"] == "dynamic") {
      EXPECT_THROW(gguf_of(spec), Error);
    } else {
      EXPECT_EQ(gguf_of(spec).metadata.integer("llama.block_count", 0, 100), 2);
    }
  }
}

TEST(Family, PublishedLlama3ScalingIsRecognisedInGgufFactors) {
  Json config = small_llama();
  config["rope_theta"] = 500000.0;
  config["rope_scaling"] = {
      {"rope_type", "llama3"}, {"factor", 32.0}, {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 8192}};
  const nn::ModelSpec spec = spec_of(config);
  const GgufDescription description = gguf_of(spec);
  EXPECT_TRUE(description.rope_factors.contains("rope_freqs.weight"));
  EXPECT_EQ(family_of_gguf(description.metadata).from_gguf(description).blocks[0].rope, spec.blocks[0].rope);
}

TEST(Family, Gemma3OfTheMultimodalSizesReadsItsTextPartWithDefaults) {
  const Json config = {{"model_type", "gemma3"},
                       {"text_config",
                        {{"hidden_size", 2560},
                         {"intermediate_size", 10240},
                         {"num_hidden_layers", 34},
                         {"sliding_window", 1024},
                         {"rope_scaling", {{"factor", 8.0}, {"rope_type", "linear"}}}}}};
  const nn::ModelSpec spec = spec_of(config);
  EXPECT_EQ(spec.vocab, 262208);
  EXPECT_TRUE(spec.tied_embeddings);
  EXPECT_EQ(spec.blocks[0].sliding_window, 1024);
  EXPECT_EQ(spec.blocks[5].sliding_window, 0);
  EXPECT_EQ(spec.blocks[5].rope.scaling, nn::RopeScaling::linear);
  EXPECT_EQ(spec.blocks[5].rope.theta, 1e6);
  EXPECT_EQ(spec.blocks[0].rope.theta, 1e4);
  EXPECT_EQ(spec.blocks[0].head_dim, 256);
  EXPECT_EQ(gguf_of(spec).metadata.integer("gemma3.attention.sliding_window", 0, 10000), 1024);
}

TEST(Family, Gemma3MergesAnOldRopeScalingIntoTheGlobalLayers) {
  const Json config = {
      {"model_type", "gemma3_text"},
      {"hidden_size", 640},
      {"intermediate_size", 2048},
      {"num_hidden_layers", 12},
      {"rope_parameters",
       {{"full_attention", {{"rope_type", "default"}, {"rope_theta", 5e5}}}, {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 2e4}}}}},
      {"rope_scaling", {{"factor", 8.0}, {"rope_type", "linear"}}}};
  const nn::ModelSpec spec = spec_of(config);
  EXPECT_EQ(spec.blocks[5].rope.scaling, nn::RopeScaling::linear);
  EXPECT_EQ(spec.blocks[5].rope.factor, 8);
  EXPECT_EQ(spec.blocks[5].rope.theta, 5e5);
  EXPECT_EQ(spec.blocks[0].rope.scaling, nn::RopeScaling::none);
  EXPECT_EQ(spec.blocks[0].rope.theta, 2e4);
}

TEST(Family, MistralWithAndWithoutWindowFitsGguf) {
  Json config = small_llama();
  config["model_type"] = "mistral";
  for (const Json& window : {Json(16), Json(nullptr)}) {
    config["sliding_window"] = window;
    const GgufDescription description = gguf_of(spec_of(config));
    EXPECT_EQ(family_of_gguf(description.metadata).from_gguf(description).family, window.is_null() ? "llama" : "mistral");
  }
}

TEST(Family, AnotherResidualStreamIsReadAsItWasWrittenAndNotByGguf) {
  Json config = small_llama();
  config["model_type"] = "frugal";
  EXPECT_THAT(error_of(config), testing::HasSubstr("norm_placement"));
  config["norm_placement"] = "behind";
  EXPECT_THAT(error_of(config), testing::AllOf(testing::StartsWith("corrupt"), testing::HasSubstr("norm_placement")));
  config["residual_scale"] = 1.5;
  config["branch_scales"] = true;
  for (const char* placement : {"before", "after", "none"}) {
    config["norm_placement"] = placement;
    const nn::ModelSpec spec = spec_of(config);
    EXPECT_EQ(spec.blocks[1].norm_after_add, placement == std::string("after"));
    EXPECT_EQ(spec.blocks[1].norm == nn::NormKind::none, placement == std::string("none"));
    EXPECT_EQ(spec_of(config_of(spec)), spec);
    EXPECT_THROW(gguf_of(spec), Error);
    nn::ModelSpec llama = spec;
    llama.family = "llama";
    EXPECT_THROW(config_of(llama), Error) << "a Llama has no words for it";
  }
  config["residual_scale"] = -1;
  EXPECT_THAT(error_of(config), testing::HasSubstr("residual_scale"));
}

TEST(Family, GgufArchitectureThatIsUnknownListsTheKnownOnes) {
  Metadata metadata("x.gguf");
  metadata.set("general.architecture", std::string("rwkv"));
  try {
    family_of_gguf(metadata);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::unsupported);
    EXPECT_THAT(error.what(), testing::HasSubstr("llama, qwen2, qwen3, gemma3"));
  }
}

}  // namespace
}  // namespace frugal::models
