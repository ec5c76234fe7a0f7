// Masks against the naive way, token by token, and what they cost.
#include <gmock/gmock.h>

#include <chrono>

#include "text/grammar_test_support.h"

namespace frugal::text {
namespace {

std::shared_ptr<const TokenBytes> vocabulary(const std::string& path) {
  return std::make_shared<const TokenBytes>(*tokenizer_from_metadata(io::open_gguf(path).content.metadata));
}

struct Named {
  const char* name;
  std::shared_ptr<const Grammar> grammar;
};

std::vector<Named> grammars() {
  const char* person =
      R"({"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "minimum": 0, "maximum": 130},
    "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 5}, "kind": {"enum": ["admin", "user", "guest"]}, "born": {"type": "string", "format": "date"},
    "zip": {"type": "string", "pattern": "^\\d{5}$"}, "score": {"type": "number"}}, "required": ["name", "age"], "additionalProperties": {"type": "boolean"}})";
  return {
      {"any object", Grammar::json_object()},
      {"schema", Grammar::from_json_schema_text(person)},
      {"tree", Grammar::from_json_schema_text(
                   R"({"type": "object", "properties": {"v": {"type": "string"}, "l": {"$ref": "#"}, "r": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}})")},
      {"regex", Grammar::from_regex(R"((?:[A-Z][a-z]{1,20} ){2,8}\d{4}-\d{2} (\w+, ?)*[^\d\s]+(?:; .*)?)")},
      {"gbnf",
       Grammar::from_gbnf(
           "root ::= \"(\" item (\", \" item)* \")\"\nitem ::= root | word | [0-9]{1,4}\nword ::= letter+\nletter ::= [a-z\\u00e0-\\u00ff] | \"\\\\\" .")},
      {"choice", Grammar::from_choices(std::vector<std::string>{"yes", "no", "maybe not", "maybe so"})},
  };
}

void compare_on_a_walk(const Named& named, const std::shared_ptr<const TokenBytes>& tokens, Rng& rng) {
  GrammarMatcher matcher(named.grammar, tokens);
  std::vector<uint32_t> bits((static_cast<size_t>(tokens->size()) + 31) / 32);
  std::string text;
  for (int step = 0; step < 25; ++step) {
    matcher.allowed(bits);
    if (step % 4 == 0 || step < 2) {
      GrammarMatcher fresh(matcher);
      for (int32_t id = 0; id < tokens->size(); ++id) {
        GrammarMatcher copy(fresh);
        const bool expected = tokens->is_end(id) ? copy.can_end() : !tokens->text(id).empty() && copy.accept_bytes(tokens->text(id));
        ASSERT_EQ(has_bit(bits, id), expected) << named.name << " after " << Json(text).dump() << ": token " << id << " " << printable(tokens->text(id));
      }
    }
    const std::vector<int32_t> ids = ids_of(bits);
    // Short tokens as often as long ones, so that texts come to their ends.
    int32_t next = ids[rng.below(ids.size())];
    for (int tries = 0; tries < 6 && tokens->text(next).find('"') == std::string_view::npos; ++tries) next = ids[rng.below(ids.size())];
    if (tokens->is_end(next)) return;
    text += tokens->text(next);
    ASSERT_TRUE(matcher.accept(next)) << named.name << " after " << text;
  }
}

TEST(GrammarMask, IsWhatTokenByTokenIsAccepted) {
  Rng rng(test_seed());
  std::vector<std::string> files = {smollm2_path()};
  if (shared_data_is_there()) files.push_back((vocabulary_dir() / "ggml-vocab-llama-spm.gguf").string());
  for (const std::string& file : files) {
    if (!fs::exists(file)) continue;
    const auto tokens = vocabulary(file);
    for (const Named& named : grammars()) compare_on_a_walk(named, tokens, rng);
  }
}

TEST(GrammarMask, NeverAllowsControlTokensAndEndsOnlyWhereTheTextMay) {
  if (!fs::exists(smollm2_path())) GTEST_SKIP() << "no " << smollm2_path();
  const auto tokenizer = tokenizer_from_metadata(io::open_gguf(smollm2_path()).content.metadata);
  const auto tokens = std::make_shared<const TokenBytes>(*tokenizer);
  GrammarMatcher matcher(Grammar::from_regex("(.|\\n)*x"), tokens);
  std::vector<uint32_t> bits((static_cast<size_t>(tokens->size()) + 31) / 32);
  for (const char* text : {"", "ab", "x", "y"}) {
    ASSERT_TRUE(matcher.accept_bytes(text));
    matcher.allowed(bits);
    for (int32_t id = 0; id < tokens->size(); ++id) {
      if (tokens->is_end(id)) {
        EXPECT_EQ(has_bit(bits, id), text == std::string_view("x"));
      } else if (tokenizer->is_special(id)) {
        EXPECT_FALSE(has_bit(bits, id)) << id;
      }
    }
  }
}

// A step of the model takes about 4 ms; a twentieth of it is 200 us.
TEST(GrammarMask, AllowsEachTokenOfARealTextAndSaysWhatThatCosts) {
  if (!fs::exists(smollm2_path())) GTEST_SKIP() << "no " << smollm2_path();
  const auto tokenizer = tokenizer_from_metadata(io::open_gguf(smollm2_path()).content.metadata);
  const auto tokens = std::make_shared<const TokenBytes>(*tokenizer);
  const std::string text =
      "{\n  \"title\": \"The quick brown fox jumps over the lazy dog\",\n  \"authors\": [\n    {\"name\": \"Ada Lovelace\", \"born\": 1815, \"notes\": \"Wrote "
      "the first "
      "program.\\nIt was never run.\"}\n  ],\n  \"scores\": [0.93, 0.88, 1e-3, 40], \"nested\": {\"a\": {\"b\": [[], {}, null, true]}}\n}";
  const std::vector<int32_t> ids = tokenizer->encode(text, {.add_special = false});
  const GrammarMatcher unused(Grammar::json_object(), tokens);
  std::vector<uint32_t> bits((static_cast<size_t>(tokens->size()) + 31) / 32);
  for (const char* pass : {"cold", "warm"}) {
    GrammarMatcher matcher(unused);
    std::vector<double> times;
    for (const int32_t id : ids) {
      const auto start = std::chrono::steady_clock::now();
      matcher.allowed(bits);
      times.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
      ASSERT_TRUE(has_bit(bits, id));
      ASSERT_TRUE(matcher.accept(id));
    }
    EXPECT_TRUE(matcher.must_end());
    std::sort(times.begin(), times.end());
    double sum = 0;
    for (const double time : times) sum += time;
    std::printf("masks, %s: mean %.1f us, p99 %.1f us of %zu\n", pass, sum / static_cast<double>(times.size()), times[times.size() * 99 / 100], times.size());
  }
}

}  // namespace
}  // namespace frugal::text
