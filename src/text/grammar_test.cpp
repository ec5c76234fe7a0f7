// GBNF, regular expressions and choices: texts that are accepted and refused, regular expressions against Python's re.
#include <gmock/gmock.h>

#include <sstream>

#include "text/grammar_test_support.h"

namespace frugal::text {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kArithmetic = R"gbnf(# sums and products
root  ::= term ([-+] term)*   # left to right
term  ::= factor ([*/] factor)*
factor ::= number
         | "(" root ")"
         | "-" factor
number ::= [0-9]+ ("." [0-9]{1,3})?
)gbnf";

constexpr const char* kChess = R"gbnf(root ::= (turn){1,3}
turn ::= [1-9] [0-9]? ". " move " " move "\n"
move ::= (pawn | piece | castle) [+#]?
piece ::= [NBKQR] [a-h]? [1-8]? "x"? square
pawn ::= ([a-h] "x")? square ("=" [NBQR])?
castle ::= "O-O" "-O"?
square ::= [a-h] [1-8]
)gbnf";

TEST(Gbnf, AcceptsTheTextsOfItsGrammarAndNoOthers) {
  const auto arithmetic = Grammar::from_gbnf(kArithmetic);
  for (const char* text : {"1", "1+2*3", "-(4.125-5)/6", "((((7))))", "--1"}) EXPECT_TRUE(accepts(arithmetic, text)) << text;
  for (const char* text : {"", "+", "1+", "(1", "1)", "1.1234", "a", "1 + 2", "()"}) EXPECT_FALSE(accepts(arithmetic, text)) << text;
  const auto chess = Grammar::from_gbnf(kChess);
  EXPECT_TRUE(accepts(chess, "1. e4 e5\n2. Nf3 Nc6\n3. O-O Qxe4#\n"));
  EXPECT_TRUE(accepts(chess, "12. exd8=Q+ R1a3\n"));
  for (const char* text : {"1. e4\n", "1. e9 e5\n", "0. e4 e5\n", "1. e4 e5\n1. e4 e5\n1. e4 e5\n1. e4 e5\n"}) EXPECT_FALSE(accepts(chess, text)) << text;
}

TEST(Gbnf, ReadsEscapesClassesAndRepetitions) {
  const auto grammar = Grammar::from_gbnf("root ::= \"\\x41\\u00e9\\n\\\"\\\\\" [^a-c\\]]{2} [\\u4e00-\\u9fff-]? .{0,1} x{2,} \r\nx::=\"x\"");
  EXPECT_TRUE(accepts(grammar, "A\u00e9\n\"\\d\U0001f600xx"));
  EXPECT_TRUE(accepts(grammar, "A\u00e9\n\"\\d\u00e9\u4e2d\u4e2dxxx"));
  EXPECT_TRUE(accepts(grammar, "A\u00e9\n\"\\dd-.xx"));
  EXPECT_FALSE(accepts(grammar, "A\u00e9\n\"\\ddx"));
  EXPECT_FALSE(accepts(grammar, "A\u00e9\n\"\\adxx"));
  EXPECT_FALSE(accepts(grammar, "A\u00e9\n\"\\d]xx"));
  EXPECT_FALSE(accepts(grammar, "A\u00e9\n\"\\d\xffxx")) << "not UTF-8";
}

TEST(Gbnf, FollowsRightRecursionAndAmbiguityForLongTexts) {
  const std::string text(50'000, 'a');
  for (const char* source :
       {"root ::= \"a\" root | \"\"", "root ::= (\"a\"*)*", "root ::= ((\"a\"?){0,9} \"\")* | \"a\"+", "root ::= x*\nx ::= \"a\" | y\ny ::= \"aa\" | \"\""}) {
    EXPECT_TRUE(accepts(Grammar::from_gbnf(source), text)) << source;
    EXPECT_FALSE(accepts(Grammar::from_gbnf(source), text + "b")) << source;
  }
  EXPECT_TRUE(accepts(Grammar::from_gbnf("root ::= \"(\" root \")\" | \"x\""), std::string(20'000, '(') + "x" + std::string(20'000, ')')));
  EXPECT_FALSE(accepts(Grammar::from_gbnf("root ::= \"(\" root \")\" | \"x\""), std::string(20'000, '(') + "x" + std::string(19'999, ')')));
}

TEST(Gbnf, SaysWhatIsWrongAndWhere) {
  const auto error = [](std::string_view text) { return error_of([&] { Grammar::from_gbnf(text); }); };
  EXPECT_THAT(error(""), HasSubstr("no rule is called root"));
  EXPECT_THAT(error("root ::= x"), HasSubstr("x is used but not defined"));
  EXPECT_THAT(error("root ::= \"a\"\nroot ::= \"b\""), HasSubstr("root is defined twice"));
  EXPECT_THAT(error("root ::= root \"a\" | \"b\""), HasSubstr("left recursion in rule root"));
  EXPECT_THAT(error("root ::= a\na ::= b \"x\" | \"y\"\nb ::= \"\" a"), HasSubstr("left recursion"));
  EXPECT_THAT(error("root ::= a a"), HasSubstr("not defined"));
  EXPECT_THAT(error("root ::= a\na ::= b\nb ::= a"), HasSubstr("no text at all"));
  EXPECT_THAT(error("root ::= \"a"), AllOf(HasSubstr("without its closing"), HasSubstr("byte 11")));
  EXPECT_THAT(error("root ::= [z-a]"), HasSubstr("ends before it begins"));
  EXPECT_THAT(error("root ::= \"a\"{3,2}"), HasSubstr("at least 3 and at most 2"));
  EXPECT_THAT(error("root ::= <think>"), HasSubstr("unsupported"));
  EXPECT_THAT(error("root ::= \"\\q\""), HasSubstr("unknown escape"));
  EXPECT_THAT(error("root = \"a\""), HasSubstr("::= is expected"));
  EXPECT_THAT(error("root ::= )"), HasSubstr("the end of the rule"));
}

TEST(RegexGrammar, MatchesWhatPythonMatches) {
  std::istringstream lines(run_oracle("make_regex_cases.py", fmt::format("--seed {} --count {}", test_seed(), environment_or("FRUGAL_REGEX_CASES", "400"))));
  int texts = 0, matching = 0, refused = 0;
  for (std::string line; std::getline(lines, line);) {
    const Json test = parse_json(line, "case");
    std::shared_ptr<const Grammar> grammar;
    try {
      grammar = Grammar::from_regex(test["pattern"].get<std::string>());
    } catch (const Error& error) {
      EXPECT_NE(error.kind(), ErrorKind::internal);
      ++refused;
      // One class of characters that cannot be met leaves nothing; all else must be understood.
      EXPECT_THAT(std::string(error.what()), HasSubstr("no text at all")) << line;
      continue;
    }
    for (size_t i = 0; i < test["texts"].size(); ++i, ++texts) {
      const auto text = test["texts"][i].get<std::string>();
      const bool expected = test["expected"][i].get<bool>();
      matching += expected;
      EXPECT_EQ(accepts(grammar, text), expected) << test["pattern"] << " on " << test["texts"][i];
    }
  }
  std::printf("%d texts, %d match, %d expressions refused\n", texts, matching, refused);
  EXPECT_GT(matching, 100);
}

TEST(RegexGrammar, RefusesByNameWhatIsNotRegular) {
  const auto error = [](std::string_view pattern) { return error_of([&] { Grammar::from_regex(pattern); }); };
  const std::pair<const char*, const char*> rows[] = {
      {"a(?=b)", "lookahead"},      {"a(?!b)", "lookahead"},     {"(?<=a)b", "lookbehind"},
      {"(?<!a)b", "lookbehind"},    {"(a)\\1", "backreference"}, {"(?P<x>a)(?P=x)", "backref"},
      {"\\bword", "word boundary"}, {"\\p{L}", "property"},      {"(?i)a", "flags"},
      {"(?>a)", "atomic"},          {"a*+", "possessive"},       {"a^b", "anchor"},
      {"(^a)", "anchor"},           {"a$b", "anchor"},           {"[[:alpha:]]", "POSIX"},
      {"[]a]", "mean different"},   {"a{,3}", "write {0,n}"},    {"\\07", "octal"},
  };
  for (const auto& [pattern, word] : rows)
    EXPECT_THAT(error(pattern), AllOf(HasSubstr("unsupported: regex: "), HasSubstr(word), HasSubstr("at byte"))) << pattern;
  for (const char* pattern : {"(", ")", "a)", "[a", "[", "*", "a**", "a{2,1}", "\\", "\\q", "[b-a]", "\\x1", "\\u{110000}", "(?<x", "{2}"}) {
    EXPECT_THAT(error(pattern), HasSubstr("invalid input: regex: ")) << pattern;
  }
  EXPECT_THAT(error("[^\\s\\S]"), HasSubstr("no text at all"));
}

TEST(ChoiceGrammar, AcceptsEachChoiceAndEndsWhereOneEnds) {
  const std::vector<std::string> choices = {"yes", "no", "not sure", "yes, but", "\u00e4", "\u00f6"};
  const auto grammar = Grammar::from_choices(choices);
  for (const std::string& choice : choices) EXPECT_TRUE(accepts(grammar, choice));
  for (const char* text : {"", "y", "not", "yesno", "\xc3"}) EXPECT_FALSE(accepts(grammar, text)) << text;
  GrammarMatcher matcher(grammar, byte_vocabulary());
  EXPECT_EQ(matcher.forced(), "");
  EXPECT_TRUE(matcher.accept_bytes("y"));
  EXPECT_EQ(matcher.forced(), "es");
  EXPECT_FALSE(matcher.accept_bytes("es!"));
  EXPECT_TRUE(matcher.accept_bytes("es"));
  EXPECT_TRUE(matcher.can_end() && !matcher.must_end());
  EXPECT_EQ(matcher.forced(), "") << "it may end here";
  EXPECT_TRUE(matcher.accept_bytes(", but"));
  EXPECT_TRUE(matcher.must_end());
}

TEST(GrammarMatcher, ForksAreIndependentAndAnEndFinishes) {
  const auto grammar = Grammar::from_regex("a+b");
  GrammarMatcher first(grammar, byte_vocabulary());
  EXPECT_TRUE(first.accept('a'));
  GrammarMatcher second(first);
  EXPECT_TRUE(second.accept('b'));
  EXPECT_FALSE(first.can_end());
  EXPECT_FALSE(first.accept(256)) << "an end where the grammar does not end";
  EXPECT_FALSE(first.finished());
  EXPECT_TRUE(second.accept(256));
  EXPECT_TRUE(second.finished());
  std::vector<uint32_t> bits(9);
  second.allowed(bits);
  EXPECT_TRUE(ids_of(bits).empty());
  EXPECT_FALSE(second.accept('a'));
  first = second;
  EXPECT_TRUE(first.finished());
  EXPECT_FALSE(first.accept(-1));
  EXPECT_FALSE(first.accept(257));
}

TEST(GrammarMatcher, FailsWhenNoTokenCanContinue) {
  const auto tokens = std::make_shared<const TokenBytes>(std::vector<std::string>{"a", "ab", ""}, std::vector<int32_t>{2});
  GrammarMatcher matcher(Grammar::from_regex("abc"), tokens);
  std::vector<uint32_t> bits(1);
  matcher.allowed(bits);
  EXPECT_EQ(bits[0], 3u);
  EXPECT_TRUE(matcher.accept(1));
  EXPECT_THAT(error_of([&] { matcher.allowed(bits); }), HasSubstr("no token that continues"));
}

}  // namespace
}  // namespace frugal::text
