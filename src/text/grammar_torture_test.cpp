// Hostile grammars and schemas: each ends within a second, as a grammar that works or as a typed error (robustness, list N).
#include <gmock/gmock.h>

#include <ctime>

#include "text/grammar_test_support.h"

namespace frugal::text {
namespace {

std::string repeated(std::string_view part, int times) {
  std::string text;
  for (int i = 0; i < times; ++i) text += part;
  return text;
}

// Compiles, walks a little and masks; gives the error, or "".
template <typename Make>
std::string outcome(Make&& make, std::string_view walk = "") {
  const std::clock_t start = std::clock();
  const std::string error = error_of([&] {
    GrammarMatcher matcher(make(), byte_vocabulary());
    std::vector<uint32_t> bits(9);
    matcher.allowed(bits);
    matcher.accept_bytes(walk);
    matcher.allowed(bits);
  });
  // Measured: at most 0.8 s. What grows without bound takes minutes; that is what this is to find, on slow machines and with sanitizers too.
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 20) << error;
  EXPECT_EQ(error.find("internal"), std::string::npos) << error;
  return error;
}

std::string gbnf(std::string_view text, std::string_view walk = "") {
  return outcome([&] { return Grammar::from_gbnf(text); }, walk);
}
std::string regex(std::string_view text, std::string_view walk = "") {
  return outcome([&] { return Grammar::from_regex(text); }, walk);
}
std::string schema(std::string_view text, std::string_view walk = "") {
  return outcome([&] { return Grammar::from_json_schema_text(text); }, walk);
}

TEST(GrammarTorture, NestingEndsInAnErrorNotInTheStack) {
  EXPECT_NE(gbnf("root ::= " + repeated("(", 60'000)), "");
  EXPECT_NE(gbnf("root ::= " + repeated("(", 60'000) + "\"a\"" + repeated(")", 60'000)), "");
  EXPECT_NE(regex(repeated("(", 60'000)), "");
  EXPECT_NE(regex(repeated("(?:", 60'000) + "a" + repeated(")*", 60'000)), "");
  EXPECT_NE(regex(repeated("[", 60'000)), "");
  EXPECT_NE(schema(repeated("{\"items\":", 10'000) + "{}" + repeated("}", 10'000)), "");
  EXPECT_NE(schema(repeated("[", 10'000)), "");
  Json deep = true;
  for (int i = 0; i < 5'000; ++i) deep = Json{{"items", std::move(deep)}};
  EXPECT_NE(outcome([&] { return Grammar::from_json_schema(deep); }), "");
}

TEST(GrammarTorture, LoopsOverNothingAndLongChainsOfRulesEnd) {
  EXPECT_EQ(gbnf("root ::= (\"a\"*)*", repeated("a", 1000)), "");
  EXPECT_EQ(gbnf("root ::= ((\"\")*)* \"a\"", "a"), "");
  EXPECT_EQ(gbnf("root ::= \"a\" | \"a\"" + repeated("*", 10'000)), "");
  EXPECT_EQ(regex("(a+)+", repeated("a", 1000)), "");
  EXPECT_EQ(regex("(((a?){0,1000}){0,1000}){0,1000}b?", repeated("a", 100)), "");
  EXPECT_EQ(regex("(.*)*(.*)*x", repeated("a", 1000)), "");
  std::string chain = "root ::= r0\n", left = "root ::= r0\n";
  for (int i = 0; i < 5'000; ++i) {
    chain += fmt::format("r{} ::= \"a\" r{}\n", i, i + 1);
    left += fmt::format("r{} ::= r{} \"a\" | \"b\"\n", i, (i + 1) % 5'000);
  }
  EXPECT_EQ(gbnf(chain + "r5000 ::= \"b\"", repeated("a", 2000)), "");
  EXPECT_THAT(gbnf(left), ::testing::HasSubstr("left recursion"));
  EXPECT_NE(gbnf("root ::= root"), "");
  std::string doubling = "root ::= r0\n";
  for (int i = 0; i < 1'000; ++i) doubling += fmt::format("r{} ::= r{} | r{}\n", i, i + 1, i + 1);
  EXPECT_EQ(gbnf(doubling + "r1000 ::= \"a\"", "a"), "");
  std::string exponential = "root ::= r0\n";
  for (int i = 0; i < 60; ++i) exponential += fmt::format("r{} ::= r{} r{}\n", i, i + 1, i + 1);
  EXPECT_THAT(gbnf(exponential + "r60 ::= \"a\"?", "aaaa"), ::testing::HasSubstr("too ambiguous"));
}

TEST(GrammarTorture, HugeRepetitionsAreRefusedAndLargeOnesCounted) {
  EXPECT_NE(gbnf("root ::= \"a\"{0,1000000000}"), "");
  EXPECT_NE(gbnf("root ::= \"a\"{99999999999999999999}"), "");
  EXPECT_NE(regex("a{0,1000000000}"), "");
  EXPECT_NE(schema(R"({"type": "string", "maxLength": 1000000000})"), "");
  EXPECT_NE(schema(R"({"type": "array", "maxItems": 1000000000})"), "");
  EXPECT_NE(schema(R"({"type": "string", "maxLength": 1e300})"), "");
  EXPECT_EQ(gbnf("root ::= (\"a\" | \"b\"){1000000}", repeated("ab", 1000)), "");
  EXPECT_EQ(regex("((a{1000}){1000}){1000}", repeated("a", 5000)), "");
  EXPECT_EQ(schema(R"({"type": "string", "maxLength": 100000})", "\"abc"), "");
  schema(R"({"type": "string", "maxLength": 100000, "pattern": "a"})");
  schema(R"({"type": "string", "minLength": 900, "pattern": "(a|b)*a(a|b){12}", "maxLength": 2000})");
}

TEST(GrammarTorture, ProductsAndLongListsStayWithinTheirBudgets) {
  std::string all, any, choices, properties, one;
  for (int i = 0; i < 20; ++i) {
    all += fmt::format(R"({}{{"anyOf": [{{"properties": {{"a{}": {{"type": "string"}}}}}}, {{"properties": {{"b{}": {{"type": "null"}}}}}}]}})", i ? "," : "",
                       i, i);
    any += fmt::format(R"({}{{"type": "object", "properties": {{"x": {{"minLength": {}}}}}}})", i ? "," : "", i);
    one += fmt::format(R"({}{{"type": "object", "properties": {{"k": {{"const": {}}}, "n": {{"$ref": "#"}}}}, "required": ["k"]}})", i ? "," : "", i);
  }
  EXPECT_THAT(schema(R"({"type": "object", "allOf": [)" + all + "]}"), ::testing::HasSubstr("more than"));
  EXPECT_EQ(schema(R"({"anyOf": [)" + any + "]}", "{\"x\": \"abc"), "");
  EXPECT_EQ(schema(R"({"oneOf": [)" + one + "]}", "{\"k\": 3, \"n\": {\"k\": 1"), "");
  for (int i = 0; i < 10'000; ++i) choices += fmt::format("{}\"item {}\"", i ? "," : "", i * 7919 % 10'007);
  EXPECT_EQ(schema(R"({"enum": [)" + choices + "]}", "\"item 1"), "");
  EXPECT_EQ(schema(R"({"minLength": 3, "enum": [)" + choices + "]}", "\"item 1"), "");
  for (int i = 0; i < 1'000; ++i) properties += fmt::format("{}\"p{}\": {{\"type\": \"null\"}}", i ? "," : "", i);
  EXPECT_EQ(schema(R"({"type": "object", "properties": {)" + properties + "}}", "{\"p3\": null, "), "");
  EXPECT_NE(schema(R"({"type": "object", "properties": {)" + properties + R"(, "q": true}})"), "");
}

TEST(GrammarTorture, BrokenTextsAreErrors) {
  for (const std::string& text :
       {std::string("root ::= \"\xff\""), std::string("root ::= \"a\0b\"", 14), std::string(1 << 20, ' '), std::string("\0", 1), repeated("a ::= a\n", 1000)}) {
    EXPECT_NE(gbnf(text), "");
    EXPECT_NE(schema(text), "");
  }
  EXPECT_NE(regex("\xc3"), "");
  EXPECT_NE(regex(std::string("a\0b", 3)), "");
  EXPECT_NE(regex(std::string(1 << 20, 'a')), "");
  EXPECT_NE(schema(R"({"a": 1, "a": 2})"), "");
  EXPECT_NE(schema(R"({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}})"), "");
  EXPECT_NE(schema(R"({"$ref": "https://example.org/schema.json"})"), "");
}

TEST(GrammarTorture, RandomDamageNeverDoesMoreThanAnError) {
  Rng rng(test_seed());
  const std::string sources[] = {
      R"({"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"enum": [1, "x"], "pattern": "^a+$", "maxLength": 4}}, "anyOf": [{}, {"minimum": 3}]})",
      "root ::= \"a\" [^b-d]{2,3} (x | \"\\u00e9\")* # end\nx ::= \"1\" | root\n", R"((?:[a-c]\d{1,3}|(x|y)+?)*[^\w\n]\u00e9$)"};
  for (int round = 0; round < 1500; ++round) {
    std::string text = sources[round % 3];
    for (uint64_t edits = rng.between(1, 4); edits > 0; --edits) {
      const size_t at = rng.below(text.size());
      const std::string_view source = sources[rng.below(3)];
      switch (rng.below(3)) {
        case 0: text.erase(at, rng.below(5) + 1); break;
        case 1: text.insert(at, source.substr(rng.below(source.size()), rng.below(9))); break;
        default: text[at] = static_cast<char>(rng.below(4) ? source[rng.below(source.size())] : rng.below(256)); break;
      }
      if (text.empty()) text = "a";
    }
    round % 3 == 0 ? schema(text, "{\"a\"") : round % 3 == 1 ? gbnf(text, "aef") : regex(text, "a1");
  }
}

}  // namespace
}  // namespace frugal::text
