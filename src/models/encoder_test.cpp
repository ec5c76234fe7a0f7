// BERTs of transformers computed by our modules, against transformers.
#include "models/encoder.h"

#include "models/test_tools.h"
#include "text/tokenizer.h"

namespace frugal::models {
namespace {

class TinyEncoders {
 public:
  static const TinyEncoders& get() {
    static const TinyEncoders encoders;
    return encoders;
  }
  std::string path(const std::string& name) const { return folder_ / name; }
  std::map<std::string, Tensor> expected(const std::string& name) const { return read_tensors(path(name) + ".expected.safetensors"); }

 private:
  TinyEncoders() { io::run_oracle("make_tiny_encoders.py", fmt::format("{} {}", folder_.path(), testing::test_seed())); }
  io::TemporaryFolder folder_;
};

struct Texts {
  std::vector<std::vector<int32_t>> tokens;
  std::vector<nn::EncoderText> texts;
  std::vector<nn::RowRange> rows;
};

Texts texts_of(const std::map<std::string, Tensor>& expected) {
  Texts result;
  for (int i = 0; expected.contains(fmt::format("tokens.{}", i)); ++i) result.tokens.push_back(ids_of(expected.at(fmt::format("tokens.{}", i))));
  int64_t begin = 0;
  for (size_t i = 0; i < result.tokens.size(); ++i) {
    const auto second = expected.find(fmt::format("second.{}", i));
    result.texts.push_back({result.tokens[i], second == expected.end() ? -1 : second->second[0].item<int64_t>()});
    result.rows.push_back({begin, std::ssize(result.tokens[i])});
    begin += std::ssize(result.tokens[i]);
  }
  return result;
}

TEST(Encoders, StatesVectorsAndScoresAreThoseOfTransformers) {
  for (const std::string name : {"mean", "cls", "last", "cross"}) {
    for (const nn::Execution execution : {nn::Execution::stored, nn::Execution::packed}) {
      SCOPED_TRACE(name);
      const nn::LoadedModel loaded = Loader().load_any(TinyEncoders::get().path(name), execution);
      ASSERT_TRUE(loaded.encoder && !loaded.model && loaded.tokenizer);
      EXPECT_EQ(loaded.embedding.max_tokens, 64);
      const auto expected = TinyEncoders::get().expected(name);
      const Texts all = texts_of(expected);
      ASSERT_EQ(all.texts.size(), 8u);
      const Tensor hidden = loaded.encoder->forward(all.texts);
      Tensor vectors = nn::pool(hidden, all.rows, loaded.embedding.pooling);
      if (loaded.embedding.normalize) vectors = nn::normalized(vectors);
      for (size_t i = 0; i < all.texts.size(); ++i) {
        EXPECT_LE(relative_difference(hidden.narrow(0, all.rows[i].begin, all.rows[i].count), expected.at(fmt::format("hidden.{}", i))), kRounding);
        EXPECT_LE(relative_difference(vectors[static_cast<int64_t>(i)], expected.at(fmt::format("vector.{}", i))), kRounding);
        if (name != "cross") continue;
        const Tensor score = loaded.encoder->scores(hidden, all.rows)[static_cast<int64_t>(i)];
        EXPECT_LE(largest_difference(score, expected.at(fmt::format("score.{}", i))), kRounding);
      }
    }
  }
}

TEST(Encoders, ATextIsTheSameAloneAndInABatchToTheLastBit) {
  for (const std::string name : {"mean", "cls", "last", "cross"}) {
    SCOPED_TRACE(name);
    const nn::LoadedModel loaded = Loader().load_any(TinyEncoders::get().path(name), nn::Execution::packed);
    const Texts all = texts_of(TinyEncoders::get().expected(name));
    const Tensor together = loaded.encoder->forward(all.texts);
    for (size_t i = 0; i < all.texts.size(); ++i) {
      const nn::RowRange row = {0, all.rows[i].count};
      const Tensor alone = loaded.encoder->forward(std::span(&all.texts[i], 1));
      EXPECT_TRUE(at::equal(alone, together.narrow(0, all.rows[i].begin, all.rows[i].count))) << row.count << " tokens";
      EXPECT_TRUE(at::equal(nn::pool(alone, std::span(&row, 1), nn::Pooling::mean), nn::pool(together, std::span(&all.rows[i], 1), nn::Pooling::mean)));
      if (name != "cross") continue;
      EXPECT_TRUE(at::equal(loaded.encoder->scores(alone, std::span(&row, 1))[0], loaded.encoder->scores(together, all.rows)[static_cast<int64_t>(i)]));
    }
  }
}

TEST(Encoders, GgufGivesTheSameVectorsAndTokens) {
  const nn::LoadedModel directory = Loader().load_any(TinyEncoders::get().path("mean"));
  const nn::LoadedModel gguf = Loader().load_any(TinyEncoders::get().path("bert.gguf"));
  ASSERT_TRUE(gguf.encoder);
  EXPECT_EQ(gguf.embedding.pooling, nn::Pooling::mean);
  const Texts all = texts_of(TinyEncoders::get().expected("mean"));
  EXPECT_TRUE(at::equal(gguf.encoder->forward(all.texts), directory.encoder->forward(all.texts)));
  for (const char* text : {"", "The quick brown fox", "naïve café, 東京!"}) EXPECT_EQ(gguf.tokenizer->encode(text), directory.tokenizer->encode(text)) << text;
}

TEST(Encoders, VerbsThatWantADecoderSayWhatTheyGot) {
  EXPECT_THAT(io::outcome_of([&] { Loader().load(TinyEncoders::get().path("mean")); }),
              ::testing::AllOf(::testing::StartsWith("unsupported"), ::testing::HasSubstr("encoder (bert)")));
}

// A copy of a checkpoint whose files can be changed.
class Changed {
 public:
  explicit Changed(const std::string& name) {
    std::filesystem::copy(TinyEncoders::get().path(name), folder_ / "m", std::filesystem::copy_options::recursive);
    config_ = parse_json(read_text_file(folder_ / "m/config.json", 1 << 20), "config.json");
  }
  std::string with(const char* key, const Json& value) const {
    Json changed = config_;
    changed[key] = value;
    const std::string before = config_.dump();
    folder_.write("m/config.json", changed.dump());
    const std::string outcome = load();
    folder_.write("m/config.json", before);
    return outcome;
  }
  std::string with_file(const char* file, const std::string& text) const {
    folder_.write(std::string("m/") + file, text);
    return load();
  }

 private:
  std::string load() const {
    return io::outcome_of([&] { Loader().load_any(folder_ / "m"); });
  }
  io::TemporaryFolder folder_;
  Json config_;
};

TEST(Encoders, WhatTheModulesHaveNotIsNamed) {
  using ::testing::AllOf;
  using ::testing::HasSubstr;
  using ::testing::StartsWith;
  const Changed mean("mean"), cross("cross");
  const auto refused = [](const char* what) { return AllOf(StartsWith("unsupported"), HasSubstr(what)); };
  const auto corrupt = [](const char* what) { return AllOf(StartsWith("corrupt"), HasSubstr(what)); };
  EXPECT_THAT(mean.with("hidden_act", "swish_glu"), refused("hidden_act"));
  EXPECT_THAT(mean.with("position_embedding_type", "relative_key_query"), refused("position_embedding_type"));
  EXPECT_THAT(mean.with("is_decoder", true), refused("is_decoder"));
  EXPECT_THAT(mean.with("architectures", {"BertForTokenClassification"}), refused("BertForTokenClassification"));
  EXPECT_THAT(mean.with("model_type", "xlm-roberta"), AllOf(refused("xlm-roberta"), HasSubstr("bert")));
  EXPECT_THAT(cross.with("id2label", {{"0", "a"}, {"1", "b"}}), refused("2 labels"));
  EXPECT_THAT(cross.with("sentence_transformers", {{"activation_fn", "torch.nn.modules.activation.ReLU"}}), refused("ReLU"));
  EXPECT_EQ(cross.with("sentence_transformers", {{"activation_fn", "torch.nn.modules.linear.Identity"}}), "ok");
  EXPECT_THAT(mean.with("hidden_size", 4096 * 12), corrupt("word_embeddings"));
  EXPECT_THAT(mean.with("num_attention_heads", 7), corrupt("hidden_size"));
  EXPECT_THAT(mean.with("type_vocab_size", 0), corrupt("type_vocab_size"));
  EXPECT_THAT(mean.with("layer_norm_eps", 0), corrupt("layer_norm_eps"));
  EXPECT_THAT(mean.with("num_hidden_layers", 4), corrupt("encoder.layer.3."));
  EXPECT_THAT(mean.with_file("1_Pooling/config.json", R"({"pooling_mode_max_tokens": true})"), refused("max"));
  EXPECT_THAT(mean.with_file("1_Pooling/config.json", R"({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true})"), refused("2 kinds of pooling"));
  EXPECT_THAT(mean.with_file("1_Pooling/config.json", R"({"pooling_mode": "lasttoken"})"), "ok");
  EXPECT_THAT(mean.with_file("sentence_bert_config.json", R"({"max_seq_length": -1})"), corrupt("max_seq_length"));
  EXPECT_THAT(mean.with_file("sentence_bert_config.json", R"({"max_seq_length": 32})"), "ok");
  const std::string transformer = R"({"type": "sentence_transformers.models.Transformer", "path": ""})";
  EXPECT_THAT(mean.with_file("modules.json", "[" + transformer + R"(, {"type": "sentence_transformers.models.Pooling", "path": "../x"}])"), corrupt("../x"));
  EXPECT_THAT(mean.with_file("modules.json", "[" + transformer + R"(, {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}])"), refused("Dense"));
}

TEST(Encoders, TextsThatDoNotFitAreErrors) {
  const nn::LoadedModel loaded = Loader().load_any(TinyEncoders::get().path("mean"));
  const auto outcome = [&](const std::vector<int32_t>& tokens) {
    return io::outcome_of([&] {
      const nn::EncoderText text{tokens};
      loaded.encoder->forward(std::span(&text, 1));
    });
  };
  EXPECT_EQ(outcome({1, 2}), "ok");
  EXPECT_THAT(outcome({}), ::testing::HasSubstr("no tokens"));
  EXPECT_THAT(outcome(std::vector<int32_t>(65, 1)), ::testing::HasSubstr("65 tokens, the model has 64 positions"));
  EXPECT_THAT(outcome({1, -1}), ::testing::HasSubstr("token id -1 at position 1"));
  EXPECT_THAT(outcome({static_cast<int32_t>(loaded.encoder->spec.vocab)}), ::testing::HasSubstr("outside the vocabulary"));
}

}  // namespace
}  // namespace frugal::models
