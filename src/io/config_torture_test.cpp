// Section E of the torture list: config.json and the shard index, by the ids of the rows.
#include <gtest/gtest.h>

#include "io/checkpoint.h"
#include "io/safetensors.h"
#include "io/test_tools.h"

namespace frugal::io {
namespace {

namespace fs = std::filesystem;

void write_tensors(const std::string& path, const std::vector<std::string>& names, int64_t rows = 2) {
  std::vector<TensorToWrite> tensors;
  for (const std::string& name : names) tensors.push_back(owned_tensor<float>(name, "F32", {rows, 2}, std::vector<float>(static_cast<size_t>(rows) * 2)));
  write_safetensors(path, tensors);
}

std::string outcome(const std::string& config) {
  const TemporaryFolder folder;
  folder.write("config.json", config);
  write_tensors(folder / "model.safetensors", {"model.embed_tokens.weight", "a", "b", "c"}, 16);
  return outcome_of([&] { open_checkpoint(folder.path()); });
}

// A whole config with one key replaced.
std::string with(const std::string& key, const std::string& value) {
  Json config = {{"architectures", {"LlamaForCausalLM"}},
                 {"hidden_size", 64},
                 {"num_hidden_layers", 2},
                 {"num_attention_heads", 8},
                 {"num_key_value_heads", 4},
                 {"vocab_size", 16},
                 {"intermediate_size", 128},
                 {"max_position_embeddings", 512},
                 {"rms_norm_eps", 1e-5},
                 {"rope_theta", 10000.0},
                 {"eos_token_id", 3},
                 {"torch_dtype", "float16"},
                 {"tie_word_embeddings", true}};
  config.erase(key);
  std::string text = config.dump();
  text.pop_back();
  return text + ",\"" + key + "\":" + value + "}";
}

TEST(ConfigTorture, E1_IntegersOutOfRange) {
  EXPECT_EQ(outcome(with("_comment", "1")), "ok");
  for (const char* key :
       {"hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size", "intermediate_size", "max_position_embeddings"}) {
    for (const char* value : {"0", "-1", "1.5", "9223372036854775808", "\"4096\"", "{}", "true", "1e9"}) {
      const std::string got = outcome(with(key, value));
      EXPECT_TRUE(got.starts_with("corrupt file")) << key << " " << value << " " << got;
      EXPECT_NE(got.find(std::string("config.json.") + key), got.npos) << got;
    }
  }
  // A list is a number for each layer, which only the width of the MLP may be.
  EXPECT_TRUE(outcome(with("hidden_size", "[64]")).starts_with("corrupt file"));
  // null and missing are the same: whether a family needs the key is for models/.
  EXPECT_EQ(outcome(with("head_dim", "null")), "ok");
}

TEST(ConfigTorture, E2_E3_SizesThatContradictEachOther) {
  EXPECT_TRUE(outcome(with("hidden_size", "63")).starts_with("corrupt file"));
  EXPECT_TRUE(outcome(with("num_key_value_heads", "16")).starts_with("corrupt file"));
  EXPECT_TRUE(outcome(with("num_key_value_heads", "3")).starts_with("corrupt file"));
  EXPECT_TRUE(outcome(with("head_dim", "0")).starts_with("corrupt file"));
  EXPECT_TRUE(outcome(with("vocab_size", "17")).starts_with("corrupt file"));
  EXPECT_TRUE(outcome(with("tie_word_embeddings", "false")).starts_with("corrupt file"));
}

TEST(ConfigTorture, E4_RopeScaling) {
  EXPECT_EQ(outcome(with("rope_scaling",
                         R"({"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192})")),
            "ok");
  EXPECT_EQ(outcome(with("rope_parameters",
                         R"({"full_attention":{"rope_type":"default","rope_theta":1e6},"sliding_attention":{"rope_type":"default","rope_theta":1e4}})")),
            "ok");
  EXPECT_TRUE(outcome(with("rope_scaling", R"({"type":"spiral","factor":2})")).starts_with("unsupported"));
  for (const char* factor : {"0", "-1", "1e308", "\"2\""}) {
    EXPECT_TRUE(outcome(with("rope_scaling", fmt::format(R"({{"type":"linear","factor":{}}})", factor))).starts_with("corrupt file")) << factor;
  }
  EXPECT_TRUE(outcome(with("rope_scaling", R"({"type":"linear","factor":NaN})")).starts_with("corrupt file"));
  EXPECT_TRUE(outcome(with("rope_scaling", R"({"type":"longrope","short_factor":[]})")).starts_with("corrupt file"));
  EXPECT_TRUE(outcome(with("rope_scaling", R"({"type":"longrope","short_factor":[1,0]})")).starts_with("corrupt file"));
  EXPECT_TRUE(outcome(with("rope_theta", "0")).starts_with("corrupt file"));
}

TEST(ConfigTorture, E5_E6_E7_E8) {
  EXPECT_TRUE(outcome(with("num_hidden_layers", "1000000000")).starts_with("corrupt file"));
  EXPECT_TRUE(outcome(with("num_hidden_layers", "5")).starts_with("corrupt file"));
  EXPECT_EQ(outcome(with("auto_map", R"({"AutoModel":"evil.py--Model"})")), "ok");
  EXPECT_EQ(outcome(with("_name_or_path", "\"../../etc\"")), "ok");
  EXPECT_EQ(outcome(with("trust_remote_code", "true")), "ok");
  EXPECT_TRUE(outcome(with("eos_token_id", "16")).starts_with("corrupt file"));
  EXPECT_TRUE(outcome(with("eos_token_id", "[1,-2]")).starts_with("corrupt file"));
  std::string many = "[0";
  for (int i = 0; i < 10000; ++i) many += ",1";
  EXPECT_TRUE(outcome(with("eos_token_id", many + "]")).starts_with("corrupt file"));
  EXPECT_TRUE(outcome(with("torch_dtype", "\"float3\"")).starts_with("unsupported"));
  EXPECT_TRUE(outcome(with("quantization_config", R"({"quant_method":"magic"})")).starts_with("unsupported"));
  EXPECT_TRUE(outcome(with("quantization_config", R"({"quant_method":"gptq","bits":4,"group_size":0})")).starts_with("corrupt file"));
  EXPECT_TRUE(outcome(with("quantization_config", R"({"quant_method":"awq","bits":4,"group_size":0})")).starts_with("corrupt file"));
  EXPECT_TRUE(outcome(with("quantization_config", R"({"quant_method":"gptq","bits":5,"group_size":128})")).starts_with("corrupt file"));
  const std::string group =
      R"({"quant_method":"compressed-tensors","config_groups":{"g":{"targets":["Linear"],"weights":{"num_bits":4,"strategy":"group","group_size":0}}}})";
  EXPECT_TRUE(outcome(with("quantization_config", group)).starts_with("corrupt file"));
}

TEST(ConfigTorture, E9_TheShardIndex) {
  const auto opened = [](const std::string& index, const std::function<void(const TemporaryFolder&)>& prepare = {}) {
    const TemporaryFolder folder;
    folder.write("config.json", "{}");
    write_tensors(folder / "s1.safetensors", {"a"});
    write_tensors(folder / "s2.safetensors", {"b"});
    if (prepare) prepare(folder);
    folder.write("model.safetensors.index.json", index);
    return outcome_of([&] { open_checkpoint(folder.path()); });
  };
  const auto map = [](const std::string& entries) { return "{\"metadata\":{},\"weight_map\":{" + entries + "}}"; };
  EXPECT_EQ(opened(map(R"("a":"s1.safetensors","b":"s2.safetensors")")), "ok");
  for (const char* shard : {"/etc/passwd", "../x", "../s1.safetensors", "sub/s1.safetensors", "", ".", "..", "a\\u0000b"}) {
    const std::string got = opened(map(fmt::format("\"a\":\"{}\"", shard)));
    EXPECT_TRUE(got.starts_with("corrupt file") || got.starts_with("unsupported")) << shard << " " << got;
  }
  EXPECT_TRUE(opened(map(R"("a":"evil.bin")")).starts_with("unsupported"));
  EXPECT_TRUE(opened(map(R"("a":"s3.safetensors")")).starts_with("i/o error"));
  EXPECT_TRUE(opened(map(R"("a":"s1.safetensors","a":"s2.safetensors")")).starts_with("corrupt file"));
  EXPECT_TRUE(opened(map(R"("a":"s2.safetensors","b":"s2.safetensors")")).starts_with("corrupt file"));
  EXPECT_TRUE(opened(map(R"("a":"s1.safetensors","c":"s2.safetensors")")).starts_with("corrupt file"));
  EXPECT_TRUE(opened(map(R"("a":3)")).starts_with("corrupt file"));
  EXPECT_TRUE(opened(map("")).starts_with("corrupt file"));
  EXPECT_TRUE(opened("{}").starts_with("corrupt file"));
  EXPECT_TRUE(opened("[]").starts_with("corrupt file"));
  const TemporaryFolder outside;
  write_tensors(outside / "s3.safetensors", {"a"});
  EXPECT_TRUE(opened(map(R"("a":"s3.safetensors")"), [&](const TemporaryFolder& folder) {
                fs::create_symlink(outside / "s3.safetensors", folder / "s3.safetensors");
              }).starts_with("corrupt file"));
  // The same file under two names: its weights would be there twice.
  EXPECT_TRUE(opened(map(R"("a":"s1.safetensors","b":"s2.safetensors","c":"s4.safetensors")"), [](const TemporaryFolder& folder) {
                fs::create_symlink("s1.safetensors", folder / "s4.safetensors");
              }).starts_with("corrupt file"));
  EXPECT_TRUE(opened(map(R"("a":"s1.safetensors","b":"s2.safetensors")"), [](const TemporaryFolder& folder) {
                write_tensors(folder / "s2.safetensors", {"a", "b"});
              }).starts_with("corrupt file"));
}

TEST(ConfigTorture, E9_AMillionEntries) {
  const TemporaryFolder folder;
  folder.write("config.json", "{}");
  std::string index = "{\"weight_map\":{";
  for (int i = 0; i < 1000000; ++i) index += fmt::format("{}\"w{}\":\"s.safetensors\"", i ? "," : "", i);
  folder.write("model.safetensors.index.json", index + "}}");
  EXPECT_TRUE(outcome_of([&] { open_checkpoint(folder.path()); }).starts_with("i/o error"));  // s.safetensors is missing
}

TEST(ConfigTorture, E10_WhatIsNotJson) {
  for (const char* text : {"", "null", "[]", "{\"a\":1,}", "{/*c*/}", "{\"a\":NaN}", "{\"a\":Infinity}", "{'a':1}", "\xEF\xBB\xBF{}", "{}x"}) {
    EXPECT_TRUE(outcome(text).starts_with("corrupt file") || std::string(text) == "null") << text << " " << outcome(text);
  }
  EXPECT_NE(outcome("null"), "ok");
  EXPECT_TRUE(outcome(std::string("\xff\xfe{\0}\0", 6)).starts_with("corrupt file"));
  EXPECT_TRUE(outcome(std::string("{}\0", 3)).starts_with("corrupt file"));
  EXPECT_TRUE(outcome("{\"a\":" + std::string(100000, '[')).starts_with("corrupt file"));
}

TEST(Checkpoint, PicklesAreRefusedWithAClearMessage) {
  const TemporaryFolder folder;
  EXPECT_TRUE(outcome_of([&] { open_checkpoint(folder.path()); }).starts_with("invalid input"));
  folder.write("config.json", "{}");
  EXPECT_TRUE(outcome_of([&] { open_checkpoint(folder.path()); }).starts_with("invalid input"));
  folder.write("pytorch_model.bin", "PK");
  const std::string got = outcome_of([&] { open_checkpoint(folder.path()); });
  EXPECT_TRUE(got.starts_with("unsupported")) << got;
  EXPECT_NE(got.find("pickle"), got.npos);
  EXPECT_TRUE(outcome_of([&] { open_checkpoint(folder / "absent.gguf"); }).starts_with("i/o error"));
}

TEST(Checkpoint, ASnapshotOfTheHubCacheLinksToItsBlobs) {
  const TemporaryFolder root;
  const std::string repository = root / "models--org--name";
  fs::create_directories(repository + "/blobs");
  fs::create_directories(repository + "/snapshots/abc");
  root.write("models--org--name/blobs/111", "{}");
  write_tensors(repository + "/blobs/222", {"a"});
  fs::create_symlink("../../blobs/111", repository + "/snapshots/abc/config.json");
  fs::create_symlink("../../blobs/222", repository + "/snapshots/abc/model.safetensors");
  EXPECT_EQ(open_checkpoint(repository + "/snapshots/abc")->tensors.size(), 1u);
  root.write("elsewhere.json", "{}");
  fs::create_symlink("../../../elsewhere.json", repository + "/snapshots/abc/frugal.json");
  EXPECT_TRUE(outcome_of([&] { open_checkpoint(repository + "/snapshots/abc"); }).starts_with("corrupt file"));
}

}  // namespace
}  // namespace frugal::io
