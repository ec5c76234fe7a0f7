// tokenizer.json and SentencePiece models: equal ids to `tokenizers` and sentencepiece, on trained and published ones,
// and on what our own converter writes.
#include "base/rng.h"
#include "io/gguf.h"
#include "text/tokenizer_convert.h"
#include "text/tokenizer_test_support.h"

namespace frugal::text {
namespace {

std::shared_ptr<const Tokenizer> load(const fs::path& path) {
  const std::string bytes = read_file(path);
  return path.extension() == ".model" ? tokenizer_from_sentencepiece(std::as_bytes(std::span(bytes)), path.string())
                                      : tokenizer_from_json(bytes, "", path.string());
}

// Texts and expected ids lie in `folder`.
void compare(const Tokenizer& tokenizer, const fs::path& folder, const std::string& name) {
  const auto texts = read_json(folder / "texts.json").get<std::vector<std::string>>();
  const Json expected = read_json(folder / (name + ".ids.json"));
  const bool word_model = name.starts_with("unigram");
  int wrong = 0;
  const auto check = [&](const std::vector<int32_t>& ids, const std::vector<int32_t>& want, const std::string& text, const char* what) {
    wrong += ids != want;
    EXPECT_EQ(ids, want) << name << " " << what << ": " << Json(text).dump(-1, ' ', true) << "\nours   " << show(ids) << "\ntheirs " << show(want);
  };
  for (size_t i = 0; i < texts.size() && wrong < 5; ++i) {
    const Json& row = expected[i];
    const auto plain = row["plain"].get<std::vector<int32_t>>();
    // A unigram model of `tokenizers` finds the text of a special token among its pieces even when that is switched off;
    // ours does not, on purpose.
    if (!word_model || texts[i].find("</s>") == std::string::npos) check(tokenizer.encode(texts[i], {.add_special = false}), plain, texts[i], "plain");
    if (row.contains("full")) check(tokenizer.encode(texts[i], {.parse_special = true}), row["full"].get<std::vector<int32_t>>(), texts[i], "full");
    // sentencepiece shows an unknown piece as U+2047.
    const auto unk = tokenizer.special().unk;
    if (unk && std::find(plain.begin(), plain.end(), *unk) != plain.end()) continue;
    EXPECT_EQ(tokenizer.decode(plain), row["text"].get<std::string>()) << name << " decoding " << show(plain);
  }
}

TEST(TokenizerJson, TrainedTokenizersOfEveryKindHaveTheIdsOfTheLibrariesThatTrainedThem) {
  const TemporaryFolder scratch;
  const std::string folder = scratch.path();
  run_oracle("make_tokenizer_ids.py", fmt::format("train {} {}", folder, test_seed() % 1000));
  std::string files;
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(scratch.path())) {
    if (entry.path().extension() != ".json" && entry.path().extension() != ".model") continue;
    paths.push_back(entry.path());
    files += entry.path().string() + " ";
  }
  ASSERT_GE(paths.size(), 20u);
  run_oracle("make_tokenizer_ids.py", fmt::format("ids {} {} {} {}", folder, random_text_count(), test_seed(), files));
  for (const fs::path& path : paths) compare(*load(path), scratch.path(), path.filename().string());
}

TEST(TokenizerJson, ALimitOfTokensIsHeldAndChangesNoIds) {
  const TemporaryFolder scratch;
  run_oracle("make_tokenizer_ids.py", fmt::format("train {} {}", scratch.path(), test_seed() % 1000));
  run_oracle("make_tokenizer_ids.py", fmt::format("ids {} {} {}", scratch.path(), random_text_count(), test_seed()));
  const auto texts = read_json(scratch / "texts.json").get<std::vector<std::string>>();
  Rng rng(test_seed());
  int held = 0;
  for (const auto& entry : fs::directory_iterator(scratch.path())) {
    if (entry.path().filename() == "texts.json" || (entry.path().extension() != ".json" && entry.path().extension() != ".model")) continue;
    const auto tokenizer = load(entry.path());
    for (const std::string& text : texts) {
      const std::vector<int32_t> ids = tokenizer->encode(text, {.parse_special = true});
      const size_t limit = rng.below(ids.size() + 3);
      try {
        EXPECT_EQ(tokenizer->encode(text, {.parse_special = true, .limit = limit}), ids) << entry.path() << ": " << text;
        EXPECT_LE(ids.size(), limit) << entry.path() << ": " << text;
      } catch (const TooManyTokens& error) {
        EXPECT_GT(error.at_least, limit) << entry.path() << ": " << text;
        EXPECT_LE(error.at_least, ids.size()) << entry.path() << ": " << text;
        ++held;
      }
    }
  }
  EXPECT_GT(held, 1000);
}

TEST(TokenizerJson, AVocabularyFromGgufWrittenAsTokenizerJsonHasTheSameIdsInTokenizers) {
  if (!shared_data_is_there()) GTEST_SKIP() << "skipped: no shared data";
  const TemporaryFolder scratch;
  const std::string folder = scratch.path();
  std::vector<std::pair<std::string, std::shared_ptr<const Tokenizer>>> tokenizers;
  std::string files = (vocabulary_dir() / "gpt-neox-20b.tokenizer.json").string();
  std::vector<fs::path> vocabularies;
  for (const char* name : {"bert-bge", "falcon", "gpt-2", "llama-spm", "starcoder"})
    vocabularies.push_back(vocabulary_dir() / fmt::format("ggml-vocab-{}.gguf", name));
  vocabularies.push_back(smollm2_path());
  for (const fs::path& path : vocabularies) {
    const Metadata metadata = io::open_gguf(path.string()).content.metadata;
    const std::string name = path.stem().string() + ".json", file = scratch / name;
    AtomicFile out(file);
    out.write(tokenizer_json_from_metadata(metadata).dump());
    out.commit();
    files += " " + file;
    tokenizers.emplace_back(name, tokenizer_from_metadata(metadata));
    tokenizers.emplace_back(name, load(file));
  }
  run_oracle("make_tokenizer_ids.py", fmt::format("ids {} {} {} {}", folder, random_text_count(), test_seed(), files));
  for (const auto& [name, tokenizer] : tokenizers) {
    if (name.find("bert") != std::string::npos || name.find("llama-spm") != std::string::npos) {
      const auto texts = read_json(scratch / "texts.json").get<std::vector<std::string>>();
      const Json expected = read_json(scratch / (name + ".ids.json"));
      for (size_t i = 0; i < texts.size(); ++i) {
        const auto want = expected[i]["plain"].get<std::vector<int32_t>>();
        EXPECT_EQ(tokenizer->encode(texts[i], {.add_special = false}), want) << name << ": " << Json(texts[i]).dump(-1, ' ', true) << "\ntheirs " << show(want);
      }
    } else {
      compare(*tokenizer, scratch.path(), name);
    }
  }
  compare(*load(vocabulary_dir() / "gpt-neox-20b.tokenizer.json"), scratch.path(), "gpt-neox-20b.tokenizer.json");
}

TEST(TokenizerJson, ATokenizerJsonTurnedIntoGgufKeysHasTheSameIds) {
  const TemporaryFolder scratch;
  const std::string folder = scratch.path();
  run_oracle("make_tokenizer_ids.py", fmt::format("train {} {}", folder, test_seed() % 1000));
  run_oracle("make_tokenizer_ids.py", fmt::format("ids {} {} {}", folder, random_text_count(), test_seed()));
  const auto texts = read_json(scratch / "texts.json").get<std::vector<std::string>>();
  for (const char* name : {"bytelevel_llama3.json", "bytelevel_tekken.json", "bytelevel_deepseek3.json", "bytelevel_smollm.json", "wordpiece_bert.json"}) {
    const Json json = read_json(scratch / name);
    const auto original = load(scratch / name);
    Metadata metadata = gguf_tokenizer_metadata(json, nullptr);
    EXPECT_EQ(tokenizer_json_from_metadata(metadata), json) << "the file itself is kept";
    metadata.erase("tokenizer.huggingface.json");
    const auto converted = tokenizer_from_metadata(metadata);
    ASSERT_EQ(converted->vocab_size(), original->vocab_size());
    for (const std::string& text : texts) {
      // GGUF has no words for single_word, and looks for added tokens in the raw text.
      if (text.find("ABC") != std::string::npos || text.find("lowest") != std::string::npos) continue;
      ASSERT_EQ(converted->encode(text), original->encode(text)) << name << ": " << text;
    }
  }
  for (const char* name : {"sp_bpe.model", "sp_unigram_bytes.model"}) {
    const std::string bytes = read_file(scratch / name);
    const auto original = load(scratch / name);
    const auto converted = tokenizer_from_metadata(gguf_tokenizer_metadata(std::as_bytes(std::span(bytes)), name));
    for (const std::string& text : texts) ASSERT_EQ(converted->encode(text), original->encode(text)) << name << ": " << text;
  }
}

TEST(TokenizerJson, AnEmbeddedTokenizerThatIsAnotherOneIsNotUsed) {
  const TemporaryFolder scratch;
  run_oracle("make_tokenizer_ids.py", fmt::format("train {} {}", scratch.path(), test_seed() % 1000));
  Metadata metadata = gguf_tokenizer_metadata(read_json(scratch / "bytelevel_llama3.json"), nullptr);
  metadata.set("tokenizer.huggingface.json", read_json(scratch / "wordpiece_bert.json").dump());
  const auto own = tokenizer_from_metadata(metadata);
  const auto written = tokenizer_from_json(tokenizer_json_from_metadata(metadata).dump(), "", "written");
  ASSERT_EQ(written->vocab_size(), own->vocab_size());
  for (int32_t id = 0; id < own->vocab_size(); ++id) ASSERT_EQ(written->token_text(id), own->token_text(id));
  EXPECT_EQ(written->encode("Lower, lowest."), own->encode("Lower, lowest."));
}

}  // namespace
}  // namespace frugal::text
