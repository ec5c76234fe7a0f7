// Calls of tools in each family's form: known from the template, enforced by the grammar, read back whole or in pieces of any size.
#include <gmock/gmock.h>

#include <sstream>

#include "oracle.h"
#include "text/answer_parser.h"
#include "text/grammar/tool_grammar.h"
#include "text/grammar_test_support.h"

namespace frugal::text {
namespace {

Tool weather() {
  return {"get_weather", "What the weather is", Json::parse(R"({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"]})"),
          false};
}
Tool clock() { return {"now", "", nullptr, false}; }

// What an answer is after all its pieces: reasoning, content, and calls as name(arguments).
struct Answer {
  std::string reasoning, content;
  std::vector<std::pair<std::string, std::string>> calls;
  void add(const AnswerDelta& delta) {
    reasoning += delta.reasoning;
    content += delta.content;
    for (const CallDelta& call : delta.calls) {
      if (!call.name.empty()) {
        EXPECT_EQ(call.index, calls.size());
        calls.emplace_back(call.name, "");
      }
      ASSERT_LT(call.index, calls.size());
      calls[call.index].second += call.arguments;
    }
  }
  std::string text() const {
    std::string all = reasoning.empty() ? content : "(" + reasoning + ")" + content;
    for (const auto& [name, arguments] : calls) all += "@" + name + arguments;
    return all;
  }
};

AnswerParserOptions options_of(const std::string& format, ReasoningMarks reasoning = {}, bool in_reasoning = false) {
  return {format.empty() ? nullptr : &tool_format(format), {"get_weather", "now"}, reasoning, in_reasoning};
}

std::string parsed(const AnswerParserOptions& options, const std::string& text, Rng* rng = nullptr) {
  AnswerParser parser(options);
  Answer answer;
  for (size_t begin = 0; begin < text.size();) {
    const size_t length = rng ? 1 + rng->below(rng->below(12) + 1) : text.size();
    answer.add(parser.push(std::string_view(text).substr(begin, length)));
    begin += length;
  }
  answer.add(parser.finish());
  return answer.text();
}

const ReasoningMarks kThink = {"<think>", "</think>"};

TEST(AnswerParser, ReadsEachForm) {
  const std::string arguments = R"({"city": "Paris} \" {", "days": 2})";
  EXPECT_EQ(parsed(options_of("hermes"), "Let me see.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": " + arguments + "}\n</tool_call>"),
            "Let me see.@get_weather" + arguments);
  EXPECT_EQ(parsed(options_of("hermes"),
                   "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>\n<tool_call>{\"name\":\"now\",\"arguments\":{}}</tool_call>"),
            "@now{}@now{}");
  EXPECT_EQ(
      parsed(options_of("mistral"), "[TOOL_CALLS] [{\"name\": \"get_weather\", \"arguments\": " + arguments + "}, {\"name\": \"now\", \"arguments\": {}}]"),
      "@get_weather" + arguments + "@now{}");
  EXPECT_EQ(parsed(options_of("mistral_args"), "[TOOL_CALLS]get_weather[ARGS]" + arguments + "[TOOL_CALLS]now[ARGS]{}"), "@get_weather" + arguments + "@now{}");
  EXPECT_EQ(parsed(options_of("llama3_json"), " {\"name\": \"get_weather\", \"parameters\": " + arguments + "}"), "@get_weather" + arguments);
  EXPECT_EQ(parsed(options_of("json"), "{\"name\": \"now\", \"arguments\": {}}\n"), "@now{}");
}

TEST(AnswerParser, WhatIsNoCallIsText) {
  const auto same = [](const std::string& format, const std::string& text) { EXPECT_EQ(parsed(options_of(format), text), text) << format; };
  same("hermes", " <tool_call> is how Qwen calls; a < b \n");
  same("hermes", "<tool_call>{\"name\": \"unknown\", \"arguments\": {}}</tool_call>");
  same("hermes", "<tool_call>{\"name\": \"now\", \"argu");
  same("hermes", "{\"name\": \"now\", \"arguments\": {}}");
  same("llama3_json", "{\"answer\": 3}");
  same("llama3_json", "Answer: {\"name\": \"now\", \"parameters\": {}}");
  same("json", "{");
  same("mistral", "[TOOL_CALLS] nothing");
  same("mistral_args", "[TOOL_CALLS]now");
  same("", "<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call> ");
  // Cut within the arguments: what there is.
  EXPECT_EQ(parsed(options_of("hermes"), "<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Pa"), "@get_weather{\"city\": \"Pa");
}

TEST(AnswerParser, LooksForCallsAtTheBeginningWhereTheyStandAlone) {
  AnswerParserOptions options = options_of("hermes");
  options.calls_alone = true;
  const std::string call = "<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>";
  EXPECT_EQ(parsed(options, "\n" + call + "\n" + call), "@now{}@now{}");
  EXPECT_EQ(parsed(options, "{\"a\": \"" + call + "\"}"), "{\"a\": \"" + call + "\"}");
  EXPECT_EQ(parsed(options, "<tool_"), "<tool_");
  EXPECT_EQ(parsed(options_of("json"), R"({"\u006eame": "now", "arguments": {}})"), R"({"\u006eame": "now", "arguments": {}})");
}

TEST(AnswerParser, SplitsReasoningOff) {
  EXPECT_EQ(parsed(options_of("", kThink), "\n<think>\nOne.\n\nTwo.\n</think>\n\nThe answer. "), "(One.\n\nTwo.)The answer. ");
  EXPECT_EQ(parsed(options_of("", kThink, true), "One.</think>Two."), "(One.)Two.");
  EXPECT_EQ(parsed(options_of("", kThink, true), "One < two "), "(One < two)");
  EXPECT_EQ(parsed(options_of("", kThink), " No <think>reasoning</think>."), " No <think>reasoning</think>.");
  EXPECT_EQ(parsed(options_of("hermes", kThink), "<think>I could <tool_call>.</think>\n<tool_call>{\"name\": \"now\", \"arguments\": {}}</tool_call>"),
            "(I could <tool_call>.)@now{}");
  EXPECT_EQ(parsed(options_of("", kThink), "<think></think>Yes"), "Yes");
  EXPECT_EQ(parsed(options_of("", kThink), "<thi"), "<thi");
}

TEST(AnswerParser, SaysTheSameOfPiecesOfAnySize) {
  Rng rng(testing::test_seed());
  const std::vector<std::string> parts = {"<tool_call>",
                                          "</tool_call>",
                                          "{\"name\": \"now\", \"arguments\": ",
                                          "{\"name\": \"get_weather\", \"parameters\": ",
                                          "{}",
                                          "}",
                                          "{\"city\": \"\\\"}\"}",
                                          " ",
                                          "\n",
                                          "text",
                                          "<think>",
                                          "</think>",
                                          "[TOOL_CALLS]",
                                          "[ARGS]",
                                          "now",
                                          "[",
                                          "]",
                                          ",",
                                          "{",
                                          "\"",
                                          "\\",
                                          "é"};
  for (int i = 0; i < 20'000; ++i) {
    std::string text;
    for (uint64_t n = rng.below(12); n > 0; --n) text += parts[rng.below(parts.size())];
    const ToolFormat& format = tool_formats()[rng.below(tool_formats().size())];
    const AnswerParserOptions options = options_of(std::string(format.name), rng.below(2) ? kThink : ReasoningMarks{}, false);
    ASSERT_EQ(parsed(options, text, &rng), parsed(options, text)) << format.name << ": " << text;
  }
}

TEST(ToolFormat, IsKnownFromTheTemplate) {
  const Json families = parse_json(testing::run_oracle("template_families.py", ""), "families", {.max_bytes = size_t{1} << 20, .max_depth = 8});
  const auto name = [&](const char* family) { return std::string(tool_format(ChatTemplate(families[family].get<std::string>(), family)).name); };
  EXPECT_EQ(name("qwen"), "hermes");
  EXPECT_EQ(name("hermes"), "hermes");
  EXPECT_EQ(name("llama3"), "llama3_json");
  EXPECT_EQ(name("mistral"), "mistral");
  EXPECT_EQ(name("chatml"), "json");
  EXPECT_EQ(name("gemma"), "json");
  EXPECT_EQ(reasoning_marks(ChatTemplate(families["deepseek"].get<std::string>(), "")).close, "</think>");
  EXPECT_EQ(reasoning_marks(ChatTemplate(families["chatml"].get<std::string>(), "")).close, "");
  EXPECT_THAT(error_of([] { tool_format("nobody"); }), ::testing::HasSubstr("llama3_json"));
}

TEST(ToolFormat, TellsTemplatesWithoutToolsInWords) {
  const Json messages = Json::parse(R"([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "now", "arguments": {}}}]},
    {"role": "tool", "tool_call_id": "a", "content": "noon"}, {"role": "user", "content": "And?"}])");
  const Json told = with_tools_told(messages, {weather(), clock()});
  ASSERT_EQ(told.size(), 4u);
  EXPECT_THAT(told[0]["content"].get<std::string>(), ::testing::AllOf(::testing::StartsWith("Be kind.\n\n"), ::testing::HasSubstr("\"get_weather\"")));
  EXPECT_EQ(told[2]["content"], R"({"name":"now","arguments":{}})");
  EXPECT_EQ(told[3]["role"], "user");
  EXPECT_EQ(told[3]["content"], "The function now returned: noon\nAnd?");
}

TEST(ToolGrammar, TakesCallsOfTheToolsAndNothingElse) {
  const auto grammar = [&](const char* format, bool required, bool parallel = true) {
    return tool_grammar(tool_format(format), {weather(), clock()}, {required, parallel});
  };
  const auto call = [](const std::string& name, const std::string& arguments) {
    return "<tool_call>\n{\"name\": \"" + name + "\", \"arguments\": " + arguments + "}\n</tool_call>";
  };
  const std::string good = call("get_weather", R"({"city": "Paris", "days": 3})");
  for (const bool required : {true, false}) {
    const auto hermes = grammar("hermes", required);
    EXPECT_TRUE(accepts(hermes, good));
    EXPECT_TRUE(accepts(hermes, good + "\n" + call("now", "{\"any\": [1]}")));
    EXPECT_FALSE(accepts(grammar("hermes", required, false), good + "\n" + good));
    EXPECT_FALSE(accepts(hermes, call("unknown", "{}")));
    EXPECT_FALSE(accepts(hermes, call("get_weather", "{}")));                            // city is required
    EXPECT_FALSE(accepts(hermes, call("get_weather", R"({"city": 3})")));                // of another type
    EXPECT_FALSE(accepts(hermes, call("get_weather", R"({"city": "x", "other": 3})")));  // not declared
    EXPECT_FALSE(accepts(hermes, good + " and text"));
    EXPECT_EQ(accepts(hermes, "Some text with < and <tool_, é."), !required);
    EXPECT_EQ(accepts(hermes, "Text, then\n" + good), !required);
    EXPECT_EQ(accepts(hermes, "<<tool_call" + good), !required);
    EXPECT_FALSE(accepts(hermes, "<tool_call>text"));
    const auto llama = grammar("llama3_json", required);
    EXPECT_TRUE(accepts(llama, R"({"name": "get_weather", "parameters": {"city": "Paris"}})"));
    EXPECT_FALSE(accepts(llama, R"({"name": "unknown", "parameters": {"city": "Paris"}})"));
    EXPECT_FALSE(accepts(llama, R"({ "name" : "unknown", "parameters": {"city": "Paris"}})"));
    EXPECT_EQ(accepts(llama, R"({"answer": 3} or so)"), !required);
    EXPECT_EQ(accepts(llama, R"({"name)"), !required);
    EXPECT_EQ(accepts(llama, "{\n3"), !required);
    EXPECT_EQ(accepts(llama, "Text"), !required);
    EXPECT_TRUE(accepts(grammar("mistral", required), R"([TOOL_CALLS] [{"name": "now", "arguments": {}}, {"name": "now", "arguments": {}}])"));
    EXPECT_FALSE(accepts(grammar("mistral", required), R"([TOOL_CALLS] [])"));
    EXPECT_TRUE(accepts(grammar("mistral_args", required), R"([TOOL_CALLS]now[ARGS]{}[TOOL_CALLS]now[ARGS]{})"));
    EXPECT_TRUE(accepts(grammar("json", required), R"({"name": "now", "arguments": {}})"));
  }
}

TEST(ToolGrammar, EnforcesASchemaOrRefusesItWhereItMust) {
  Tool tool = clock();
  tool.parameters = Json::parse(R"({"type": "object", "properties": {"a": {"not": {"type": "object"}}}})");
  const ToolFormat& format = tool_format("json");
  const std::string refusal = error_of([&] { tool_grammar(format, {weather(), tool}, {.required = true}); });
  EXPECT_THAT(refusal, ::testing::AllOf(::testing::HasSubstr("tools/1/function/parameters"), ::testing::HasSubstr("#/properties/a/not")));
  EXPECT_TRUE(accepts(tool_grammar(format, {tool}, {}), R"({"name": "now", "arguments": {"a": {}}})"));
  tool.parameters["type"] = "strnig";  // broken, not only beyond a grammar
  EXPECT_THAT(error_of([&] { tool_grammar(format, {tool}, {}); }), ::testing::HasSubstr("tools/0/function/parameters"));
  tool.parameters["type"] = "object";
  tool.strict = true;
  EXPECT_NE(error_of([&] { tool_grammar(format, {tool}, {}); }), "");
  tool.parameters = {{"type", "array"}};
  EXPECT_THAT(error_of([&] { tool_grammar(format, {tool}, {}); }), ::testing::HasSubstr("an object"));
}

std::shared_ptr<const Grammar> person() {
  return Grammar::from_json_schema(Json::parse(
      R"({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"], "additionalProperties": false})"));
}

TEST(ToolGrammar, TakesACallOrAnAnswerInTheFormThatIsAskedFor) {
  const auto grammar = [&](const std::string& format, const std::shared_ptr<const Grammar>& answer, bool required = false) {
    return tool_grammar(tool_format(format), {weather(), clock()}, {.required = required, .answer = answer.get()});
  };
  const std::vector<std::pair<std::string, std::string>> calls = {{"hermes", R"(<tool_call>{"name": "now", "arguments": {}}</tool_call>)"},
                                                                  {"llama3_json", R"({"name": "now", "parameters": {}})"},
                                                                  {"mistral", R"([TOOL_CALLS][{"name": "now", "arguments": {}}])"},
                                                                  {"mistral_args", "[TOOL_CALLS]now[ARGS]{}"},
                                                                  {"json", R"({"name": "now", "arguments": {}})"}};
  for (const auto& [format, call] : calls) {
    const bool is_object = call[0] == '{';
    const auto shaped = grammar(format, person());
    EXPECT_TRUE(accepts(shaped, call)) << format;
    EXPECT_TRUE(accepts(shaped, R"({"name": "now", "age": 3})")) << format;
    EXPECT_TRUE(accepts(shaped, R"({"name":"Ann","age":3})")) << format;
    EXPECT_FALSE(accepts(shaped, "Text")) << format;
    EXPECT_FALSE(accepts(shaped, "Text " + call)) << format;
    EXPECT_FALSE(accepts(shaped, R"({"name": "Ann"})")) << format;
    EXPECT_FALSE(accepts(grammar(format, person(), true), R"({"name": "Ann", "age": 3})")) << format;
    EXPECT_TRUE(accepts(grammar(format, person(), true), call)) << format;
    // Any object, but what begins as a call does.
    const auto object = grammar(format, Grammar::json_object());
    EXPECT_TRUE(accepts(object, call)) << format;
    EXPECT_TRUE(accepts(object, R"({"answer": {"name": "now", "arguments": {"a": 1}}})")) << format;
    EXPECT_TRUE(accepts(object, R"({"name": "now", "arguments": 3})")) << format;
    EXPECT_TRUE(accepts(object, R"({"name": "other", "arguments": {"a": 1}})")) << format;
    EXPECT_EQ(accepts(object, R"({"name": "get_weather", "arguments": {"a": 1}, "b": 2})"), !is_object) << format;
    EXPECT_EQ(accepts(object, R"({"name":"get_weather", "parameters":{}})"), !is_object) << format;
    EXPECT_TRUE(accepts(grammar(format, Grammar::from_regex("yes|no")), "no")) << format;
  }
  const auto any = grammar("hermes", Grammar::from_regex(".*"));
  EXPECT_TRUE(accepts(any, "<tool_<tool_call>"));
  EXPECT_FALSE(accepts(any, "<tool_call>text"));
  EXPECT_TRUE(accepts(any, "Text <tool_call>text"));
  const std::vector<std::string> only = {"<tool_call>x"};
  EXPECT_THAT(error_of([&] { grammar("hermes", Grammar::from_choices(only)); }), ::testing::HasSubstr("begins as a call"));
}

// Calls alone or the answer alone: a text is read as what it is, whole and in pieces.
TEST(ToolGrammar, WhatIsReadAsACallIsNeverAnAnswerInTheFormThatIsAskedFor) {
  Rng rng(testing::test_seed());
  const std::vector<std::string> choices = {"<tool_call", "<tool_call>{", "{\"name\":", "{\"name\": \"now\", \"arguments\": {}}", "[TOOL_CALLS]", "yes"};
  const std::vector<std::shared_ptr<const Grammar>> answers = {person(), Grammar::json_object(), Grammar::from_regex(" *[{<\\[].*"),
                                                               Grammar::from_choices(choices)};
  int calls = 0, texts = 0;
  for (int i = 0; i < 400; ++i) {
    const ToolFormat& format = tool_formats()[rng.below(tool_formats().size())];
    const std::shared_ptr<const Grammar>& answer = answers[rng.below(answers.size())];
    GrammarMatcher matcher(tool_grammar(format, {weather(), clock()}, {.answer = answer.get()}), byte_vocabulary());
    std::string text;
    if (rng.below(2) && format.open.empty()) text = "{\"name\": \"now\", ";  // on the way to a call, or to an object
    if (!matcher.accept_bytes(text)) text.clear();
    std::vector<uint32_t> bits(9);
    while (!matcher.finished() && text.size() < 3000) {
      matcher.allowed(bits);
      std::vector<int32_t> ids = ids_of(bits);
      if (text.size() > 100 && has_bit(bits, 256)) ids = {256};
      const int32_t id = ids[rng.below(ids.size())];
      ASSERT_TRUE(matcher.accept(id));
      if (id < 256) text += static_cast<char>(id);
    }
    if (!matcher.finished()) continue;
    AnswerParserOptions options = options_of(std::string(format.name));
    options.calls_alone = true;
    const std::string read = parsed(options, text);
    ASSERT_EQ(parsed(options, text, &rng), read) << format.name << ": " << text;
    const bool called = read.starts_with('@');
    ASSERT_EQ(called, accepts(tool_grammar(format, {weather(), clock()}, {.required = true}), text)) << format.name << ": " << text;
    if (!called) {
      ASSERT_TRUE(accepts(answer, text)) << format.name << ": " << text;
      ASSERT_EQ(read, text) << format.name;
    }
    ++(called ? calls : texts);
  }
  EXPECT_GT(calls, 20);
  EXPECT_GT(texts, 100);
}

// Whatever the grammar lets a model write, the parser reads: calls of known tools with arguments that are JSON.
TEST(ToolGrammar, WhatItAllowsIsReadAsCalls) {
  Rng rng(testing::test_seed());
  int calls = 0;
  for (int i = 0; i < 200; ++i) {
    const ToolFormat& format = tool_formats()[rng.below(tool_formats().size())];
    GrammarMatcher matcher(tool_grammar(format, {weather(), clock()}, {.required = true}), byte_vocabulary());
    std::string text;
    std::vector<uint32_t> bits(9);
    while (!matcher.finished() && text.size() < 3000) {
      matcher.allowed(bits);
      std::vector<int32_t> ids = ids_of(bits);
      if (text.size() > 200 && has_bit(bits, 256)) ids = {256};
      const int32_t id = ids[rng.below(ids.size())];
      ASSERT_TRUE(matcher.accept(id));
      if (id < 256) text += static_cast<char>(id);
    }
    if (!matcher.finished()) continue;
    AnswerParser parser(options_of(std::string(format.name)));
    Answer answer;
    answer.add(parser.push(text));
    answer.add(parser.finish());
    ASSERT_EQ(answer.content, "") << text;
    ASSERT_FALSE(answer.calls.empty()) << text;
    for (const auto& [name, arguments] : answer.calls) {
      const Json value = Json::parse(arguments, nullptr, false);
      ASSERT_TRUE(value.is_object()) << text;
      ASSERT_TRUE(name != "get_weather" || value["city"].is_string()) << text;
      ++calls;
    }
  }
  EXPECT_GT(calls, 50);
}

}  // namespace
}  // namespace frugal::text
