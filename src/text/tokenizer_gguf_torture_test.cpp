// B22 to B24 of the robustness list: vocabularies of GGUF files that contradict themselves.
#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "text/charsmap.h"
#include "text/tokenizer_test_support.h"
#include "text/unicode.h"

namespace frugal::text {
namespace {

using Strings = std::vector<std::string>;

// A byte-level BPE: all 256 bytes, "ab", "abc", and <s> as a control token.
Metadata byte_level_bpe() {
  Strings tokens;
  for (int b = 0; b < 256; ++b) tokens.push_back(to_utf8(byte_to_char(static_cast<uint8_t>(b))));
  for (const char* token : {"ab", "abc", "<s>"}) tokens.push_back(token);
  std::vector<int64_t> types(tokens.size(), 1);
  types.back() = 3;
  Metadata metadata("t.gguf");
  metadata.set("tokenizer.ggml.model", std::string("gpt2"));
  metadata.set("tokenizer.ggml.pre", std::string("gpt-2"));
  metadata.set("tokenizer.ggml.tokens", tokens);
  metadata.set("tokenizer.ggml.token_type", types);
  metadata.set("tokenizer.ggml.merges", Strings{"a b", "ab c"});
  return metadata;
}

// A SentencePiece vocabulary with all byte tokens.
Metadata score_bpe() {
  Strings tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int64_t> types = {2, 3, 3};
  for (int b = 0; b < 256; ++b) {
    tokens.push_back(fmt::format("<0x{:02X}>", b));
    types.push_back(6);
  }
  for (const char* token : {"\xE2\x96\x81", "a", "b", "ab"}) {
    tokens.push_back(token);
    types.push_back(1);
  }
  Metadata metadata("t.gguf");
  metadata.set("tokenizer.ggml.model", std::string("llama"));
  metadata.set("tokenizer.ggml.tokens", tokens);
  metadata.set("tokenizer.ggml.token_type", types);
  metadata.set("tokenizer.ggml.scores", std::vector<double>(tokens.size(), -1));
  metadata.set("tokenizer.ggml.unknown_token_id", uint64_t{0});
  return metadata;
}

std::string outcome(const Metadata& metadata) {
  try {
    tokenizer_from_metadata(metadata)->encode("abc \xFF", {.add_special = false});
    return "ok";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("t.gguf"), std::string::npos) << error.what();
    return fmt::format("{}: {}", to_string(error.kind()), error.what());
  }
}

std::string with(Metadata metadata, const std::string& key, MetadataValue value) {
  metadata.set("tokenizer.ggml." + key, std::move(value));
  return outcome(metadata);
}
std::string with_token(const Metadata& base, size_t index, const std::string& token) {
  Strings tokens = base.texts("tokenizer.ggml.tokens");
  tokens.at(index) = token;
  return with(base, "tokens", tokens);
}

TEST(GgufTokenizerTorture, B22_CountsAndIds) {
  EXPECT_EQ(outcome(byte_level_bpe()), "ok");
  EXPECT_EQ(outcome(score_bpe()), "ok");
  EXPECT_NE(with(byte_level_bpe(), "tokens", Strings{}), "ok");
  EXPECT_NE(with(byte_level_bpe(), "token_type", std::vector<int64_t>(3, 1)), "ok");
  EXPECT_NE(with(byte_level_bpe(), "token_type", std::vector<int64_t>(259, 7)), "ok");
  EXPECT_NE(with(score_bpe(), "scores", std::vector<double>(3, 0)), "ok");
  EXPECT_NE(with(score_bpe(), "scores", std::vector<double>(263, std::nan(""))), "ok");
  for (const char* id : {"bos_token_id", "eos_token_id", "eot_token_id", "padding_token_id"}) {
    EXPECT_NE(with(byte_level_bpe(), id, uint64_t{259}), "ok") << id;
    EXPECT_NE(with(byte_level_bpe(), id, std::string("1")), "ok") << id;
    EXPECT_EQ(with(byte_level_bpe(), id, uint64_t{UINT32_MAX}), "ok") << id;  // how files say that there is none
  }
  EXPECT_TRUE(with(byte_level_bpe(), "model", std::string("rwkv")).starts_with("unsupported"));
}

TEST(GgufTokenizerTorture, B23_Tokens) {
  for (const char* token : {"<0x-1>", "<0xZZ>", "<0x1", "<0x00>", ""}) EXPECT_NE(with_token(score_bpe(), 3 + 0x41, token), "ok") << token;
  std::vector<int64_t> types = score_bpe().integers("tokenizer.ggml.token_type");
  types[3] = 1;  // 255 byte tokens
  EXPECT_NE(with(score_bpe(), "token_type", types), "ok");
  EXPECT_EQ(with_token(byte_level_bpe(), 257, std::string(1 << 20, 'x')).substr(0, 12), "corrupt file");  // "abc" is gone: merge 1 has no result
  EXPECT_TRUE(with_token(score_bpe(), 262, std::string(1 << 20, 'x')).starts_with("unsupported"));
}

TEST(GgufTokenizerTorture, B24_Merges) {
  for (const char* merge : {"", "ab", "a", " ", "a ", "a nothing", "nothing b", "b a"}) {
    const std::string got = with(byte_level_bpe(), "merges", Strings{"a b", merge});
    EXPECT_TRUE(got.starts_with("corrupt file")) << "\"" << merge << "\" " << got;
  }
  EXPECT_TRUE(with(byte_level_bpe(), "merges", Strings{"a b c"}).starts_with("corrupt file"));
  EXPECT_EQ(with(byte_level_bpe(), "merges", Strings{"a b", "a b"}), "ok");  // the first one counts
  EXPECT_EQ(with(byte_level_bpe(), "merges", Strings(1'000'000, "a b")), "ok");
}

// C9, D9: the trie of a charsmap may hold anything, cycles and indices beyond its end too.
TEST(GgufTokenizerTorture, D9_ARandomCharsmapNeverDoesHarm) {
  Rng rng(test_seed());
  int loaded = 0;
  for (int i = 0; i < 3000; ++i) {
    const auto units = static_cast<uint32_t>(1 + rng.below(40));
    std::string blob(4 + 4 * units, '\0');
    const uint32_t bytes = 4 * units;
    std::memcpy(blob.data(), &bytes, 4);
    for (uint32_t u = 0; u < units; ++u) {
      // Labels of the text's letters, offsets within or somewhat beyond the trie, leaves.
      auto unit = static_cast<uint32_t>(rng.below(64) << 10 | rng.below(2) << 8 | (rng.below(2) ? 'a' + rng.below(3) : rng.below(256)));
      if (rng.below(8) == 0) unit = static_cast<uint32_t>(rng.next());
      std::memcpy(blob.data() + 4 + 4 * u, &unit, 4);
    }
    for (uint64_t n = rng.below(20); n > 0; --n) blob += static_cast<char>(rng.below(2) ? 'a' + rng.below(26) : 0);
    if (rng.below(4) != 0) blob += '\0';
    try {
      const Charsmap charsmap(blob, "t.gguf");
      ++loaded;
      std::string text;
      for (int j = 0; j < 200; ++j) text += static_cast<char>('a' + rng.below(3));
      for (size_t at = 0; at < text.size();) {
        const auto match = charsmap.longest(std::string_view(text).substr(at));
        at += match ? match->length : 1;
      }
    } catch (const Error&) {}
  }
  EXPECT_GT(loaded, 0);
}

}  // namespace
}  // namespace frugal::text
