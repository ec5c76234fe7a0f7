// Tokenizers from GGUF vocabularies: equal ids to those that llama.cpp's test data expects and that llama.cpp gives.
#include "io/gguf.h"
#include "text/tokenizer_test_support.h"

namespace frugal::text {
namespace {

const char* const kVocabularies[] = {"bert-bge", "falcon", "gpt-2", "llama-spm", "starcoder"};

std::vector<std::string> split_cases(const std::string& text) {
  const std::string mark = "\n__ggml_vocab_test__\n";
  std::vector<std::string> cases;
  size_t at = 0;
  for (size_t end = text.find(mark); end != std::string::npos; end = text.find(mark, at)) {
    cases.push_back(text.substr(at, end - at));
    at = end + mark.size();
  }
  if (at < text.size()) cases.push_back(text.substr(at));
  return cases;
}

std::vector<std::vector<int32_t>> read_ids(const std::string& text) {
  std::vector<std::vector<int32_t>> result;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream numbers(line);
    auto& ids = result.emplace_back();
    for (int32_t id; numbers >> id;) ids.push_back(id);
  }
  return result;
}

class GgufOracle : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!shared_data_is_there()) return;
    scratch_ = new TemporaryFolder;
    std::string files;
    // llama.cpp is built from its sdist: only scripts/test --full has it.
    for (const char* name : with_llama_cpp() ? std::span(kVocabularies) : std::span(kVocabularies).first(0)) {
      files += (vocabulary_dir() / fmt::format("ggml-vocab-{}.gguf", name)).string() + " ";
    }
    run_oracle("make_tokenizer_cases.py", fmt::format("{} {} {} {}", scratch_->path(), random_text_count(), test_seed(), files));
  }
  static void TearDownTestSuite() {
    delete scratch_;
    scratch_ = nullptr;
  }
  void SetUp() override {
    if (!scratch_) GTEST_SKIP() << "skipped: no shared data";
  }
  static std::shared_ptr<const Tokenizer> load(const std::string& name) {
    return tokenizer_from_metadata(io::open_gguf((vocabulary_dir() / fmt::format("ggml-vocab-{}.gguf", name)).string()).content.metadata);
  }
  static bool with_llama_cpp() { return std::getenv("FRUGAL_FULL") != nullptr; }
  static inline TemporaryFolder* scratch_ = nullptr;
};

TEST_F(GgufOracle, EveryCaseOfTheTestDataHasTheExpectedIds) {
  for (const char* name : kVocabularies) {
    const auto tokenizer = load(name);
    const std::string stem = (vocabulary_dir() / fmt::format("ggml-vocab-{}.gguf", name)).string();
    const auto cases = split_cases(read_file(stem + ".inp"));
    const auto expected = read_ids(read_file(stem + ".out"));
    ASSERT_EQ(cases.size(), expected.size()) << name;
    for (size_t i = 0; i < cases.size(); ++i) {
      const auto ids = tokenizer->encode(cases[i], {.add_special = false});
      EXPECT_EQ(ids, expected[i]) << name << " case " << i << ": " << printable(cases[i]) << "\n" << show(ids);
    }
  }
}

TEST_F(GgufOracle, RandomUnicodeTextHasTheIdsOfLlamaCpp) {
  if (!with_llama_cpp()) GTEST_SKIP() << "llama.cpp: scripts/test --full";
  const auto texts = read_json(*scratch_ / "texts.json").get<std::vector<std::string>>();
  // Not bert-bge: llama.cpp's normal form maps single characters only; there `tokenizers` is the oracle
  // (tokenizer_json_test.cpp).
  for (const char* name : {"falcon", "gpt-2", "llama-spm", "starcoder"}) {
    const auto tokenizer = load(name);
    const Json expected = read_json(*scratch_ / fmt::format("ggml-vocab-{}.llama.json", name));
    int wrong = 0;
    for (size_t i = 0; i < texts.size() && wrong < 5; ++i) {
      for (const bool parse : {false, true}) {
        const auto ids = tokenizer->encode(texts[i], {.add_special = false, .parse_special = parse});
        const auto want = expected[i][parse ? "parsed" : "plain"].get<std::vector<int32_t>>();
        wrong += ids != want;
        EXPECT_EQ(ids, want) << name << ": " << Json(texts[i]).dump(-1, ' ', true) << "\nours   " << show(ids) << "\ntheirs " << show(want);
      }
    }
  }
}

TEST_F(GgufOracle, DecodingGivesTheTextBack) {
  const auto texts = read_json(*scratch_ / "texts.json").get<std::vector<std::string>>();
  for (const char* name : {"falcon", "gpt-2", "llama-spm", "starcoder"}) {
    const auto tokenizer = load(name);
    for (const std::string& text : texts) {
      // SentencePiece writes spaces as U+2581, so that character itself does not survive.
      if (std::string_view(name) == "llama-spm" && text.find("\xE2\x96\x81") != std::string::npos) continue;
      const auto ids = tokenizer->encode(text, {.add_special = false, .parse_special = false});
      EXPECT_EQ(tokenizer->decode(ids), text) << name;
      StreamDecoder stream(*tokenizer, false, true);
      std::string streamed;
      for (const int32_t id : ids) streamed += stream.push(id);
      EXPECT_EQ(streamed + stream.flush(), text) << name;
    }
  }
}

}  // namespace
}  // namespace frugal::text
