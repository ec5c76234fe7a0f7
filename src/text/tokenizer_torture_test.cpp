// Sections C and D of the robustness list: whatever a tokenizer.json, a SentencePiece model or a text holds, the answer
// is a typed Error or a working tokenizer, in linear time.
#include <gmock/gmock.h>

#include <cstring>
#include <ctime>
#include <functional>
#include <limits>

#include "base/rng.h"
#include "text/pattern.h"
#include "text/tokenizer_test_support.h"
#include "text/unicode.h"

namespace frugal::text {
namespace {

// ---- C. tokenizer.json ---------------------------------------------------------------------------------------------

// A byte-level BPE over all 256 bytes, "ab" and "abc", with <s>; `edit` changes it.
Json small_json() {
  Json vocab = Json::object();
  for (int b = 0; b < 256; ++b) vocab[to_utf8(byte_to_char(static_cast<uint8_t>(b)))] = b;
  vocab["ab"] = 256;
  vocab["abc"] = 257;
  vocab["<s>"] = 258;
  return {{"added_tokens", {{{"id", 258}, {"content", "<s>"}, {"special", true}}}},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"a b", "ab c"}}}}};
}

std::shared_ptr<const Tokenizer> load(const Json& json, const std::string& config = "") { return tokenizer_from_json(json.dump(), config, "t.json"); }

// The text of the Error that `action` throws; a failure if it throws none.
template <typename Action>
std::string error_of(Action action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "no Error";
  return {};
}

struct Edit {
  const char* name;
  std::function<void(Json&)> edit;
};

Json replace_step(const char* pattern_kind, const std::string& pattern, const std::string& content) {
  return {{"type", "Replace"}, {"pattern", {{pattern_kind, pattern}}}, {"content", content}};
}
Json split_step(const std::string& regex) { return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}}; }

TEST(TokenizerTorture, BrokenDocumentsAreRefused) {
  for (const std::string& text :
       {std::string(), std::string("null"), std::string("[]"), std::string("{}"), std::string("{\"model\":{}}"), std::string("{\"model\":null}"),
        std::string("\xEF\xBB\xBF{}"), std::string("{\"model\":{\"type\":\"BPE\",\"type\":\"BPE\"}}"),
        std::string(R"({"model":{"type":"BPE","merges":[],"vocab":{"\ud800":0}}})"),
        std::string("{\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{\"\xC0\x80\":0}}}"),
        "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":" + std::string(100000, '[')}) {
    EXPECT_THROW(tokenizer_from_json(text, "", "t.json"), Error) << printable(text);
  }
  EXPECT_NO_THROW(tokenizer_from_json(R"({"model":{"type":"BPE","merges":[],"vocab":{"\u0000":0,"\udbff\udfff":1}}})", "", "t.json"));
}

TEST(TokenizerTorture, EachBrokenFieldIsRefusedAndNamed) {
  const Edit edits[] = {
      {"type", [](Json& j) { j["model"]["type"] = "Nope"; }},
      {"type", [](Json& j) { j["model"]["type"] = 3; }},
      {"vocab", [](Json& j) { j["model"]["vocab"] = Json::object(); }},
      {"vocab", [](Json& j) { j["model"]["vocab"] = "x"; }},
      {"same id", [](Json& j) { j["model"]["vocab"]["ab"] = 257; }},
      {"vocab", [](Json& j) { j["model"]["vocab"]["ab"] = -1; }},
      {"vocab", [](Json& j) { j["model"]["vocab"]["ab"] = uint64_t{1} << 32; }},
      {"vocab", [](Json& j) { j["model"]["vocab"]["ab"] = 1000000; }},
      {"vocab", [](Json& j) { j["model"]["vocab"]["ab"] = 1.5; }},
      {"vocab", [](Json& j) { j["model"]["vocab"]["ab"] = "7"; }},
      {"merge 2", [](Json& j) { j["model"]["merges"].push_back("x y"); }},
      {"merge 2",
       [](Json& j) {
         j["model"]["merges"].push_back({"q", "unknown"});
       }},
      {"merges[2]", [](Json& j) { j["model"]["merges"].push_back("xy"); }},
      {"merges[2]", [](Json& j) { j["model"]["merges"].push_back({"a"}); }},
      {"merges", [](Json& j) { j["model"].erase("merges"); }},
      {"unk_token", [](Json& j) { j["model"]["unk_token"] = "<nope>"; }},
      {"id", [](Json& j) { j["added_tokens"][0]["id"] = 100000000; }},
      {"id", [](Json& j) { j["added_tokens"][0]["id"] = 3; }},
      {"content", [](Json& j) { j["added_tokens"][0]["content"] = ""; }},
  };
  for (const Edit& edit : edits) {
    Json json = small_json();
    edit.edit(json);
    const std::string message = error_of([&] { load(json); });
    EXPECT_NE(message.find(edit.name), std::string::npos) << message;
  }
  EXPECT_NE(error_of([] { load(small_json(), R"({"bos_token":"<nope>"})"); }).find("bos_token"), std::string::npos);
  EXPECT_EQ(load(small_json(), R"({"eos_token":{"content":"<s>"}})")->special().eos, 258);
}

TEST(TokenizerTorture, EachBrokenSectionIsRefusedAndNamed) {
  const struct {
    const char *named, *section, *json;
  } rows[] = {
      {"Prepend", "normalizer", R"({"type":"Sequence","normalizers":[{"type":"PrependX"}]})"},
      {"pattern", "normalizer", R"({"type":"Replace","pattern":{"String":""},"content":"x"})"},
      {"base64", "normalizer", R"({"type":"Precompiled","precompiled_charsmap":"!!!!"})"},
      {"charsmap", "normalizer", R"({"type":"Precompiled","precompiled_charsmap":"/////w=="})"},
      {"behavior", "pre_tokenizer", R"({"type":"Split","pattern":{"String":"x"},"behavior":"Sideways"})"},
      {"Nope", "pre_tokenizer", R"({"type":"Nope"})"},
      {"Nope", "decoder", R"({"type":"Nope"})"},
      {"Nope", "post_processor", R"({"type":"Nope"})"},
      {"special_tokens", "post_processor", R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<x>","type_id":0}},{"Sequence":{"id":"A"}}]})"},
      {"sequence A", "post_processor", R"({"type":"TemplateProcessing","single":[]})"},
      {"Sequence", "post_processor", R"({"type":"TemplateProcessing","single":[{"Sequence":{"id":"B"}}]})"},
      {"cls", "post_processor", R"({"type":"BertProcessing","cls":["[CLS]",1],"sep":["<s>",258]})"},
  };
  for (const auto& row : rows) {
    Json json = small_json();
    json[row.section] = Json::parse(row.json);
    const std::string message = error_of([&] { load(json); });
    EXPECT_NE(message.find(row.named), std::string::npos) << row.json << " " << message;
  }
}

TEST(TokenizerTorture, MergesMayBeStringsOrPairs) {
  Json pairs = small_json();
  pairs["model"]["merges"] = Json::array({Json::array({"a", "b"}), Json::array({"ab", "c"})});
  EXPECT_EQ(load(pairs)->encode("abcab"), load(small_json())->encode("abcab"));
  EXPECT_EQ(load(pairs)->encode("abcab"), (std::vector<int32_t>{257, 256}));
  pairs["model"]["merges"].push_back({"a", "b"});  // again, and to a longer one that is there already: no cycle can come of it
  pairs["model"]["merges"].push_back("a b");
  EXPECT_EQ(load(pairs)->encode("abcab"), (std::vector<int32_t>{257, 256}));
}

TEST(TokenizerTorture, PatternsThatCouldExplodeOrMeanSomethingElseAreRefused) {
  for (const std::string& regex : {std::string("(a+)+"),       std::string("(a|a)*b"),    std::string("(?R)"),
                                   std::string("(a)\\1"),      std::string("(?<=a)b"),    std::string("(?<!a)b"),
                                   std::string(64 << 10, 'a'), std::string("(a"),         std::string("a)"),
                                   std::string("[a"),          std::string("a{2,1}"),     std::string("*a"),
                                   std::string("\\"),          std::string("[a&&b]"),     std::string("[[a]]"),
                                   std::string("\\h"),         std::string("(*COMMIT)a"), std::string("(?P<x>a)"),
                                   std::string("\\p{Nope}"),   std::string("((a*)b*)*"),  std::string(100, '(') + "a" + std::string(100, ')')}) {
    Json json = small_json();
    json["pre_tokenizer"] = split_step(regex);
    EXPECT_THROW(load(json), Error) << printable(regex);
  }
}

TEST(TokenizerTorture, APatternOfHighPolynomialCostStopsWithAnErrorInsteadOfRunningOn) {
  Json json = small_json();
  json["pre_tokenizer"] = split_step("a*a*a*a*a*b");
  const auto tokenizer = load(json);
  EXPECT_THROW(tokenizer->encode(std::string(100000, 'a')), Error);
  EXPECT_NO_THROW(tokenizer->encode("aaab aab"));
}

// PCRE2 takes n steps for these, but looks at n^2 characters.
TEST(TokenizerTorture, APatternThatScansFarFromEveryStartStopsWithAnErrorToo) {
  for (const char* regex : {"a+b", "a++b", "(?=a+b)a|a", "\\p{L}+\\p{N}"}) {
    Json json = small_json();
    json["pre_tokenizer"] = split_step(regex);
    const auto tokenizer = load(json);
    EXPECT_THROW(tokenizer->encode(std::string(400000, 'a')), Error) << regex;
    EXPECT_NO_THROW(tokenizer->encode("aaab aab1 " + std::string(1000, 'a'))) << regex;
  }
}

TEST(TokenizerTorture, AMatchMayBeLongerThanWhatAnAttemptLooksAtFirst) {
  // Where a run ends, at the end of the text, and after a look back: as if the whole text had been seen at once.
  const std::string run(100000, 'a');
  for (const char* regex : {"\\p{L}+", "\\p{L}++", "\\p{L}+(?!\\S)|\\p{L}", "\\p{L}+$|\\p{L}+"}) {
    Json json = small_json();
    json["pre_tokenizer"] = {{"type", "Sequence"},
                             {"pretokenizers", {split_step(regex), {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
    json["model"]["merges"] = Json::array();
    const auto tokenizer = load(json);
    for (const std::string& text : {run, run + " b", "\u00e9 " + run + "\u00e9\u00e9 c"})
      EXPECT_TRUE(tokenizer->decode(tokenizer->encode(text)) == text) << regex;
  }
}

TEST(TokenizerTorture, ADecoderThatGrowsTheTextIsStopped) {
  Json json = small_json();
  Json steps = Json::array();
  for (int i = 0; i < 64; ++i) steps.push_back(replace_step("String", "a", std::string(10, 'a')));
  json["decoder"] = {{"type", "Sequence"}, {"decoders", steps}};
  const auto tokenizer = load(json);
  EXPECT_THROW(tokenizer->decode(tokenizer->encode("a")), Error);
  EXPECT_NO_THROW(tokenizer->decode(tokenizer->encode("b")));
}

TEST(TokenizerTorture, TokensOfWordPieceAndPiecesOfATemplateAreBounded) {
  Json json = small_json();
  json["model"] = {{"type", "WordPiece"}, {"unk_token", "[UNK]"}, {"vocab", {{"[UNK]", 0}, {"a", 1}, {"##" + std::string(1100, 'a'), 2}}}};
  json["added_tokens"] = Json::array();
  EXPECT_THAT(error_of([&] { load(json); }), ::testing::HasSubstr("1102 bytes"));
  json = small_json();
  Json pieces = Json::array({{{"Sequence", {{"id", "A"}}}}});
  for (int i = 0; i < 300; ++i) pieces.push_back({{"SpecialToken", {{"id", "<s>"}}}});
  json["post_processor"] = {{"type", "TemplateProcessing"}, {"single", pieces}, {"special_tokens", {{"<s>", {{"ids", {258}}}}}}};
  EXPECT_THAT(error_of([&] { load(json); }), ::testing::HasSubstr("256 pieces"));
}

TEST(TokenizerTorture, AWordThatNothingStandsForIsAnError) {
  Json json = small_json();
  json["model"] = {{"type", "WordLevel"}, {"unk_token", "zzz"}, {"vocab", {{"a", 0}, {"b", 1}}}};
  json["pre_tokenizer"] = {{"type", "Whitespace"}};
  json["added_tokens"] = Json::array();
  const auto tokenizer = load(json);
  EXPECT_EQ(tokenizer->encode("a b a"), (std::vector<int32_t>{0, 1, 0}));
  EXPECT_THROW(tokenizer->encode("a c"), Error);
}

TEST(TokenizerTorture, ANormalizerThatGrowsTheTextIsStopped) {
  Json json = small_json();
  json["normalizer"] = replace_step("String", "a", std::string(1000, 'a'));
  const auto tokenizer = load(json);
  EXPECT_NO_THROW(tokenizer->encode("a"));
  EXPECT_THROW(tokenizer->encode(std::string(10000, 'a')), Error);
}

TEST(TokenizerTorture, HundredThousandAddedTokensLoadAndMatchInLinearTime) {
  Json json = small_json();
  for (int i = 0; i < 100000; ++i)
    json["added_tokens"].push_back({{"id", 259 + i}, {"content", fmt::format("<tok{}>", i)}, {"special", false}, {"normalized", false}});
  const auto tokenizer = load(json);
  EXPECT_EQ(tokenizer->encode("<tok7><tok99999>", {.add_special = false}), (std::vector<int32_t>{266, 100258}));
  std::string text;
  for (int i = 0; i < 100000; ++i) text += "<tok";
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
}

TEST(TokenizerTorture, TextOfTheUserNeverBecomesASpecialToken) {
  const auto tokenizer = load(small_json());
  EXPECT_EQ(tokenizer->encode("<s>", {.parse_special = true}), (std::vector<int32_t>{258}));
  for (const int32_t id : tokenizer->encode("<s><s>x<s>")) EXPECT_NE(id, 258);
  Json whole = small_json();
  whole["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  whole["model"]["ignore_merges"] = true;
  for (const int32_t id : load(whole)->encode("<s>")) EXPECT_NE(id, 258);
  EXPECT_EQ(load(whole)->encode("abc"), (std::vector<int32_t>{257}));
}

TEST(TokenizerTorture, AnyBytesSurviveAByteLevelTokenizer) {
  const auto tokenizer = load(small_json());
  for (int a = 0; a < 256; ++a) {
    for (int b = 0; b < 256; ++b) {
      const std::string text = {static_cast<char>(a), static_cast<char>(b)};
      ASSERT_EQ(tokenizer->decode(tokenizer->encode(text)), text) << a << " " << b;
    }
  }
  Rng rng(test_seed());
  for (int i = 0; i < 100000; ++i) {
    std::string text;
    for (uint64_t n = rng.below(12); n > 0; --n) text += static_cast<char>(rng.below(256));
    ASSERT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  }
}

TEST(TokenizerTorture, IdsOutsideTheVocabularyAreRefused) {
  const auto tokenizer = load(small_json());
  for (const int32_t id : {-1, tokenizer->vocab_size(), INT32_MAX, INT32_MIN}) {
    EXPECT_THROW(tokenizer->decode(std::vector{id}), Error) << id;
    EXPECT_THROW(tokenizer->piece(id), Error) << id;
    EXPECT_THROW(tokenizer->token_text(id), Error) << id;
    EXPECT_THROW(tokenizer->is_special(id), Error) << id;
  }
}

TEST(TokenizerTorture, AStreamHoldsBackACharacterUntilItIsComplete) {
  const auto tokenizer = load(small_json());
  StreamDecoder stream(*tokenizer);
  std::vector<std::string> seen;
  for (const unsigned char byte : std::string("a\xF0\x9F\x98\x80z\xE2\x82")) seen.push_back(stream.push(byte));
  EXPECT_EQ(seen, (std::vector<std::string>{"a", "", "", "", "\xF0\x9F\x98\x80", "z", "", ""}));
  EXPECT_EQ(stream.flush(), "\xEF\xBF\xBD");
  EXPECT_EQ(stream.push(0xE2), "");
  EXPECT_EQ(stream.push('b'),
            "\xEF\xBF\xBD"
            "b");
}

TEST(TokenizerTorture, AMebibyteOfOneKindComesBack) {
  const auto tokenizer = load(small_json());
  for (const char* unit : {"a", "Z", "7", " ", "\n", "^", "\xCC\x81", "\xE4\xB8\x96", "\xF0\x9F\x98\x80\xE2\x80\x8D", "\xFF", "\xC2\xA0", "\xD9\xA3", "\x00"}) {
    std::string text;
    while (text.size() < (size_t{1} << 20)) text += *unit ? std::string(unit) : std::string(1, '\0');
    ASSERT_EQ(tokenizer->decode(tokenizer->encode(text)), text) << printable(unit);
  }
}

double thread_seconds() {
  timespec now;
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// This thread's time for eight times the text over that for the text, each the least of several, since others share the machine.
// Linear is 8 and quadratic 64: the bar lies between, since a longer text may leave the cache.
TEST(TokenizerTorture, TimeGrowsLinearlyForLongTextsOfOneKind) {
  const auto byte_level = load(small_json());
  Json metaspace = small_json();
  metaspace["normalizer"] = {{"type", "NFC"}};
  metaspace["pre_tokenizer"] = nullptr;
  metaspace["model"]["unk_token"] = "<s>";
  const auto one_piece = load(metaspace);
  const char* const units[] = {"a",    "ab",       "Z",  "7",       " ", "\n", "^", "\xCC\x81", "\xC3\xA9", "\xE4\xB8\x96", "\xF0\x9F\x98\x80\xE2\x80\x8D",
                               "\xFF", "\xC2\xA0", " x", "\xD9\xA3"};
  for (const auto& tokenizer : {byte_level, one_piece}) {
    for (const char* unit : units) {
      std::string text;
      while (text.size() < (size_t{32} << 10)) text += unit;
      std::string longer;
      for (int copy = 0; copy < 8; ++copy) longer += text;
      double once = 1e9, eight = 1e9;
      for (int trial = 0; trial < 12 && (trial < 2 || eight > 12 * once); ++trial) {
        const double start = thread_seconds();
        tokenizer->encode(text);
        const double middle = thread_seconds();
        tokenizer->encode(longer);
        once = std::min(once, middle - start);
        eight = std::min(eight, thread_seconds() - middle);
      }
      EXPECT_LT(eight, 22 * once) << printable(unit);
    }
  }
}

// ---- D. SentencePiece ----------------------------------------------------------------------------------------------

std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}
std::string number(uint32_t field, uint64_t value) { return varint(field << 3) + varint(value); }
std::string bytes(uint32_t field, const std::string& value) { return varint(field << 3 | 2) + varint(value.size()) + value; }
std::string piece(const std::string& text, float score = -1, int type = 1) {
  std::string four(4, '\0');
  std::memcpy(four.data(), &score, 4);
  return bytes(1, bytes(1, text) + varint(2 << 3 | 5) + four + number(3, static_cast<uint64_t>(type)));
}
std::string small_model() { return piece("<unk>", 0, 2) + piece("</s>", 0, 3) + piece("a") + piece("b") + piece("ab", -0.5); }

std::shared_ptr<const Tokenizer> load_model(const std::string& model) { return tokenizer_from_sentencepiece(std::as_bytes(std::span(model)), "t.model"); }

TEST(TokenizerTorture, BrokenSentencePieceModelsAreRefused) {
  std::string nested = "\x0A";
  for (int i = 0; i < 10000; ++i) nested = bytes(1, nested);
  std::string random;
  Rng rng(test_seed());
  for (int i = 0; i < 1024; ++i) random += static_cast<char>(rng.below(256));
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const std::string size_word = std::string("\x40\x00\x00\x00", 4);
  const std::pair<const char*, std::string> models[] = {
      {"empty", ""},
      {"one byte", "\x0A"},
      {"random", random},
      {"varint of 11 bytes", small_model() + std::string(10, '\x80') + '\x01'},
      {"cut varint", small_model() + "\x80"},
      {"field past the end", small_model() + "\x0A\x7F"},
      {"length 2^63", small_model() + "\x0A" + varint(uint64_t{1} << 63)},
      {"nested", nested},
      {"wire type 3", small_model() + "\x0B"},
      {"wire type 4", small_model() + "\x0C"},
      {"wire type 6", small_model() + "\x0E"},
      {"wire type 7", small_model() + "\x0F"},
      {"field 0", small_model() + std::string("\x00\x01", 2)},
      {"piece as varint", small_model() + number(1, 3)},
      {"empty piece", small_model() + piece("")},
      {"duplicate piece", small_model() + piece("a")},
      {"piece of 1 MiB", small_model() + piece(std::string(1 << 20, 'x'))},
      {"score NaN", small_model() + piece("c", nan)},
      {"score infinite", small_model() + piece("c", infinity)},
      {"type 0", small_model() + piece("c", 0, 0)},
      {"type 7", small_model() + piece("c", 0, 7)},
      {"no unknown", piece("a")},
      {"two unknown", small_model() + piece("<unk2>", 0, 2)},
      {"byte without fallback", small_model() + piece("<0x00>", 0, 6)},
      {"control as byte", small_model() + piece("x", 0, 6) + bytes(2, number(35, 1))},
      {"255 bytes", small_model() + piece("<0x00>", 0, 6) + bytes(2, number(35, 1))},
      {"charsmap size", small_model() + bytes(3, bytes(2, size_word))},
      {"charsmap short", small_model() + bytes(3, bytes(2, "abc"))},
      {"charsmap not NUL-ended", small_model() + bytes(3, bytes(2, std::string("\x04\x00\x00\x00\x00\x00\x00\x00x", 9)))},
      {"model type 9", small_model() + bytes(2, number(3, 9))},
      {"vocab size", small_model() + bytes(2, number(4, 77))},
      {"invalid UTF-8", small_model() + piece("\xC0\x80")},
  };
  for (const auto& [name, model] : models) EXPECT_THROW(load_model(model), Error) << name;
}

TEST(TokenizerTorture, ACutSentencePieceModelNeverDoesHarm) {
  const std::string model = small_model() + bytes(2, number(3, 1) + number(4, 5)) + bytes(3, number(3, 0));
  for (size_t size = 0; size < model.size(); ++size) {
    try {
      load_model(model.substr(0, size))->encode("abc");
    } catch (const Error&) {}
  }
  EXPECT_EQ(load_model(model)->encode("ab", {.add_special = false}), (std::vector<int32_t>{4}));
}

TEST(TokenizerTorture, AVocabularyFileThatIsNotUtf8IsNamedWithItsLine) {
  const testing::TemporaryFolder folder;
  folder.write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n\xff\n");
  EXPECT_THAT(error_of([&] { load_tokenizer_directory(folder.path()); }), ::testing::HasSubstr("vocab.txt: line 5 is not UTF-8"));
  folder.write("vocab.txt", "[PAD]\n[UNK]\n");
  EXPECT_THAT(error_of([&] { load_tokenizer_directory(folder.path()); }), ::testing::HasSubstr("vocab.txt: no [CLS]"));
}

TEST(TokenizerTorture, TheConfigBesideASentencePieceModelSaysWhetherBosIsAdded) {
  const std::string model = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("a") + bytes(2, number(3, 2)) + bytes(3, number(3, 0));
  const auto ids = [&](const char* config) { return tokenizer_from_sentencepiece(std::as_bytes(std::span(model)), "t.model", config)->encode("a"); };
  EXPECT_EQ(ids(""), (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(ids(R"({"add_bos_token": true})"), (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(ids(R"({"add_bos_token": false})"), (std::vector<int32_t>{2}));
  EXPECT_THROW(ids("{"), Error);
}

TEST(TokenizerTorture, OfARepeatedScalarTheLastCounts) {
  const std::string model = small_model() + bytes(2, number(3, 9) + number(3, 1)) + bytes(3, number(3, 1) + number(3, 0));
  EXPECT_EQ(load_model(model)->encode("ba", {.add_special = false}), (std::vector<int32_t>{3, 2}));
}

TEST(TokenizerTorture, TextThatNoPieceMatchesIsOneUnknownInLinearTime) {
  const auto tokenizer = load_model(small_model() + bytes(3, number(3, 0)));
  EXPECT_EQ(tokenizer->encode(std::string(1 << 20, 'x'), {.add_special = false}), (std::vector<int32_t>{0}));
}

}  // namespace
}  // namespace frugal::text
