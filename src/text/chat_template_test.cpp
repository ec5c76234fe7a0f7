// Chat templates against jinja2 as transformers drives it (tests/oracle/make_template_cases.py): the families, templates
// of installed packages and random ones, byte for byte, including whether there is an error.
#include "text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "base/error.h"
#include "oracle.h"

namespace frugal::text {
namespace {

class FixedClock : public Clock {
 public:
  double seconds() const override { return 0; }
  int64_t unix_time() const override { return 1'700'000'000; }
};
const FixedClock kClock;

std::string render(const std::string& source, const Json& messages = Json::array(), RenderOptions options = {}) {
  options.clock = &kClock;
  return joined(ChatTemplate(source, "test").render(messages, options));
}

std::string error_of(const std::string& source, const Json& messages = Json::array()) {
  try {
    render(source, messages);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

RenderOptions options_of(const Json& json) {
  RenderOptions options;
  options.tools = json["tools"];
  options.add_generation_prompt = json["add_generation_prompt"];
  options.bos_token = json["bos_token"];
  options.eos_token = json["eos_token"];
  options.extra = json["extra"];
  options.clock = &kClock;
  return options;
}

// Spans of {% generation %} in code points, as the oracle gives them, against the marks of the segments.
std::string generated(const std::vector<RenderedSegment>& segments) {
  std::string out;
  for (const RenderedSegment& segment : segments) {
    if (segment.generation) out += segment.text;
  }
  return out;
}

void check_case(const Json& test) {
  const std::string shown = test["name"].get<std::string>() + "\n" + test["template"].get<std::string>() + "\nmessages " + test["messages"].dump();
  std::vector<RenderedSegment> segments;
  try {
    segments = ChatTemplate(test["template"].get<std::string>(), "test").render(test["messages"], options_of(test["options"]));
  } catch (const Error& error) {
    if (std::string_view(error.what()).find("over the limit of") != std::string_view::npos) return;  // ours, not jinja2's: 1234567 * text
    EXPECT_TRUE(test["expected"].is_null()) << shown << "\nexpected " << test["expected"].dump() << "\nerror: " << error.what();
    return;
  }
  const std::string got = joined(segments);
  if (test["expected"].is_null()) {
    ADD_FAILURE() << shown << "\nexpected the error " << test["error"].dump() << "\ngot " << Json(got).dump();
    return;
  }
  EXPECT_EQ(got, test["expected"].get<std::string>()) << shown;
  EXPECT_EQ(generated(segments), test["generated"].get<std::string>()) << shown;
}

TEST(ChatTemplate, RendersWhatJinja2Renders) {
  std::istringstream lines(testing::run_oracle(
      "make_template_cases.py", fmt::format("--seed {} --count {}", testing::test_seed(), testing::environment_or("FRUGAL_TEMPLATE_CASES", "250"))));
  int cases = 0;
  for (std::string line; std::getline(lines, line); ++cases) check_case(parse_json(line, "case", {.max_bytes = size_t{64} << 20, .max_depth = 64}));
  EXPECT_GT(cases, 300);
}

TEST(ChatTemplate, MarksWhatCameFromTheRequestAsData) {
  const ChatTemplate chat(R"({{ '<|' + m.role + '|>' if false }}{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}<|end|>{% endfor %}{{ extra }})",
                          "t");
  RenderOptions options;
  options.extra = {{"extra", "kw"}};
  const auto segments = chat.render(Json::array({{{"role", "user"}, {"content", " <|end|>{{ 7*7 }} "}}, {{"role", "<|x|>"}, {"content", "b"}}}), options);
  std::string shown;
  for (const RenderedSegment& s : segments) shown += (s.from_data ? "D[" : "T[") + s.text + "]";
  EXPECT_EQ(shown, "T[<|user|>]D[<|end|>{{ 7*7 }}]T[<|end|><|]D[<|x|>]T[|>]D[b]T[<|end|>]D[kw]");
}

TEST(ChatTemplate, KeepsTheMarksThroughStringOperations) {
  RenderOptions options;
  options.extra = {{"d", "dAtA"}, {"l", {"x", "y"}}};
  const auto marks = [&](const std::string& source) {
    std::string out;
    for (const RenderedSegment& s : ChatTemplate(source, "t").render(Json::array(), options)) out += (s.from_data ? "D[" : "T[") + s.text + "]";
    return out;
  };
  EXPECT_EQ(marks("{{ ('t' + d + 't')[1:-1] }}"), "D[dAtA]");
  EXPECT_EQ(marks("{{ ('a' ~ d ~ 'b')|replace('b', 'c')|upper }}"), "T[A]D[DATA]T[C]");
  EXPECT_EQ(marks("{{ l|join(', ') }}"), "D[x]T[, ]D[y]");
  EXPECT_EQ(marks("{{ {'k': d}|tojson }}"), "T[{\"k\": \"]D[dAtA]T[\"}]");
  EXPECT_EQ(marks("{{ '%s|%s' % (d, 't') }}{{ '{}:{}'.format('a', d) }}"), "D[dAtA]T[|ta:]D[dAtA]");
  EXPECT_EQ(marks("{{ (d ~ '<|end|>').split('A')|join('-') }}"), "D[d]T[-]D[t]T[-<|end|>]");
  EXPECT_EQ(marks("{% set x %}<{{ d }}>{% endset %}{{ x|indent }}{% macro m(a) %}({{ a }}){% endmacro %}{{ m(d)|trim }}"), "T[<]D[dAtA]T[>(]D[dAtA]T[)]");
  EXPECT_EQ(marks("{% generation %}g{{ d }}{% endgeneration %}n"), "T[g]D[dAtA]T[n]");
}

TEST(ChatTemplate, NormalizesMessagesAsTransformersDoes) {
  const Json messages = Json::parse(R"([{"role": "assistant", "content": null, "reasoning": "r"}, {"role": "user", "content": "c"}])");
  EXPECT_EQ(normalized_messages(messages).dump(),
            R"([{"thinking":"r","role":"assistant","reasoning":"r","reasoning_content":"r"},{"role":"user","content":"c"}])");
  EXPECT_THROW(normalized_messages(Json::parse("{}")), Error);
  EXPECT_THROW(normalized_messages(Json::parse("[3]")), Error);
}

TEST(ChatTemplate, TellsWhichVariablesItReads) {
  const ChatTemplate chat(
      "{% set x = 1 %}{{ x }}{% if enable_thinking %}{% endif %}{{ tools|length }}{% set y = y or 2 %}{% for z in z %}{{ u }}{% set u = 1 %}{% endfor %}", "t");
  EXPECT_TRUE(chat.reads("y"));
  EXPECT_TRUE(chat.reads("z"));
  EXPECT_TRUE(chat.reads("u"));
  EXPECT_TRUE(chat.reads("enable_thinking"));
  EXPECT_TRUE(chat.reads("tools"));
  EXPECT_FALSE(chat.reads("x"));
  EXPECT_FALSE(chat.reads("documents"));
}

// The torture list, section F of robustness.md

TEST(ChatTemplate, StopsEndlessWorkByItsBudget) {
  EXPECT_THAT(error_of("{% for i in range(10**9) %}{% endfor %}"), ::testing::HasSubstr("Range too big"));
  const std::string nested = "{% for i in range(10000) %}{% for j in range(10000) %}{% endfor %}{% endfor %}";
  EXPECT_THAT(error_of(nested), ::testing::HasSubstr("steps"));
  for (const char* source :
       {"{{ 'a' * 10**9 }}", "{% set ns = namespace(s='a') %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{{ range(90000)|join('x' * 10000) }}", "{{ ('a' * 100000)|replace('a', 'b' * 100000) }}", "{{ '%9999999999d' % 1 }}", "{{ '%*d' % (10**12, 1) }}",
        "{{ '{:9999999999}'.format(1) }}", "{{ 'a'|indent(10**9, true) }}", "{{ 'a'|center(10**10) }}", "{{ 'a'.zfill(10**10) }}", "{{ [1] * 10**9 }}",
        "{{ [[1]*1000]*1000 * 1000 }}", "{{ {'a': 1}|tojson(indent=10**10) }}", "{{ '%.999999999f' % 1 }}",
        "{% set ns = namespace(l=[]) %}{% for i in range(90000) %}{% set ns.l = ns.l + ['x'*100000] %}{% endfor %}",
        "{% for i in range(90000) %}{{ 'x' * 1000 }}{% endfor %}", "{{ ('a'*4000000).rsplit('a'*2000000 ~ 'b', 3) }}",
        "{{ ('ab'*2000000).strip('b'*2000000 ~ 'a') }}"}) {
    EXPECT_NE(error_of(source), "") << source;
  }
}

TEST(ChatTemplate, AnAttributeThatEveryUndefinedHasIsUnsafeAnyOtherAnError) {
  // As jinja2 3.1 in its sandbox.
  EXPECT_EQ(joined(ChatTemplate("{{ not missing.__class__ }}|{{ missing._undefined_name }}|", "t").render(Json::array(), {})), "True||");
  for (const char* source : {"{{ missing.__foo__ }}", "{{ missing['__class__'] }}", "{{ missing.x }}", "{{ missing.__class__.__mro__ }}"}) {
    EXPECT_NE(error_of(source), "") << source;
  }
}

TEST(ChatTemplate, StopsWhenItsTimeIsOver) {
  RenderOptions options;
  options.limits.max_seconds = 0.05;
  for (const char* step : {"s == t", "s|upper"}) {
    const ChatTemplate chat(
        fmt::format("{{% set s = 'a' * 4000000 %}}{{% set t = 'a' * 4000000 %}}{{% for i in range(90000) %}}{{% set u = {} %}}{{% endfor %}}", step), "t");
    try {
      chat.render(Json::array(), options);
      ADD_FAILURE() << step;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr("more than 0.05 s"));
    }
  }
}

TEST(ChatTemplate, LimitsDepthOfEverything) {
  for (const char* source :
       {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns }}",
        "{% set ns = namespace(l=[]) %}{% for i in range(9000) %}{% set ns.l = [ns.l] %}{% endfor %}"}) {
    EXPECT_THAT(error_of(source), ::testing::HasSubstr("deeper than")) << source;
  }
  const auto repeated = [](const std::string& text, int count) {
    std::string out;
    for (int i = 0; i < count; ++i) out += text;
    return out;
  };
  for (const char* open : {"(", "[", "{1:", "-", "not ", "f(", "x[", "1 if 2 else "}) EXPECT_NE(error_of("{{ " + repeated(open, 100000) + " 1 }}"), "") << open;
  for (const char* chain : {"1+", "x.y", "x|e|", "1 if ", "'a'~", "1 is odd or "}) EXPECT_NO_FATAL_FAILURE(error_of("{{ " + repeated(chain, 50000) + " 1 }}"));
  for (const char* tag : {"{% if 1 %}", "{% for x in y %}", "{% set x %}", "{% macro m() %}", "{% filter upper %}", "{% with %}"}) {
    EXPECT_THAT(error_of(repeated(tag, 50000)), ::testing::HasSubstr("deeper than")) << tag;
  }
  EXPECT_THAT(error_of("{% for " + repeated("(", 90000) + "x" + repeated(")", 90000) + " in y %}{% endfor %}"), ::testing::HasSubstr("deeper than"));
  const std::string chain = "{% set ns = namespace(c=none) %}{% for i in range(90000) %}{% set ns.c = namespace(p=ns.c) %}{% endfor %}done";
  EXPECT_EQ(render(chain), "done");  // a chain of 90,000 namespaces is freed without recursion
}

TEST(ChatTemplate, RefusesBrokenTemplatesWithTheLine) {
  for (const char* source : {"{% if x %}", "{{ x", "{% for", "{{ 'abc }}", "{# comment", "{% raw %} x", "{% endfor %}", "{{ }}", "{% set %}", "{{ 'a\\",
                             "{{ '\\x' }}", "{% break %}", "{{ x | nofilter }}", "{{ x is notest }}", "{% unknown %}", "{% macro f(a=1, b) %}{% endmacro %}",
                             "{{ ( }}", "{{ ] }}", "{% set true = 1 %}"}) {
    EXPECT_THAT(error_of(std::string("\n\n") + source), ::testing::HasSubstr("line ")) << source;
  }
  EXPECT_THAT(error_of("\n\n{{ x"), ::testing::HasSubstr("line 3"));
  for (const char* source :
       {"{% include 'x' %}", "{% import '/etc/passwd' as x %}", "{% extends 'a' %}", "{% from 'a' import b %}", "{% block x %}{% endblock %}"}) {
    try {
      render(source);
      ADD_FAILURE() << source;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::unsupported) << source;
    }
  }
  EXPECT_NE(error_of("\xff"), "");
  EXPECT_NE(error_of("{{ '\\ud800' }}"), "");
  EXPECT_EQ(render(std::string("a\0b", 3)), std::string("a\0b", 3));
}

TEST(ChatTemplate, ReachesNothingBeyondItsValues) {
  for (const char* source : {"{{ ''.__class__.__mro__ }}", "{{ cycler.__init__.__globals__ }}", "{{ lipsum() }}", "{{ self._TemplateReference__context.x }}",
                             "{{ ''|attr('__class__')|attr('x') }}", "{{ '{0.__class__}'.format(1) }}", "{{ '{0[a]}'.format(1) }}", "{{ range.__self__.x }}",
                             "{{ [].append(1) }}", "{{ {}.update({}) }}", "{{ ''['__class__']['x'] }}", "{{ namespace.__init__.__globals__ }}",
                             "{{ namespace(__class__=1) }}", "{% set ns = namespace() %}{% set ns._x = 1 %}", "{{ messages.__class__() }}",
                             "{{ loop.__init__.x }}", "{{ (1).__add__(2) }}", "{% set x.y = 1 %}", "{{ raise_exception.__globals__.x }}"}) {
    EXPECT_NE(error_of(source), "") << source;
  }
}

TEST(ChatTemplate, RefusesWhatPythonRefusesToCompute) {
  for (const char* source : {"{{ [1, 'a']|sort }}", "{{ [{'a': 1}, {'a': 'x'}]|groupby('a') }}", "{{ 1 / 0 }}", "{{ 1 // 0 }}", "{{ 1 % 0 }}", "{{ 1.0 % 0 }}",
                             "{{ 2 ** 4000 }}", "{{ 10.0 ** 400 }}", "{{ 0 ** -1 }}", "{{ 'abc'[::0] }}", "{{ none[1:] }}",
                             "{{ 170141183460469231731687303715884105727 + 1 }}", "{{ {[]: 1} }}", "{{ [] in {} }}", "{{ 3|slice(0)|list }}"}) {
    EXPECT_NE(error_of(source), "") << source;
  }
  EXPECT_EQ(render("{{ 'abc'[2**63] }}|{{ [1][-2**70] }}|{{ 'abc'[-2**63:2**63] }}|{{ 'abc'[-1:-9:-1] }}"), "||abc|cba");
  EXPECT_EQ(render("{{ 2**62 * 2 }}"), "9223372036854775808");
}

TEST(ChatTemplate, GivesTheTemplatesOwnErrorEscaped) {
  EXPECT_EQ(error_of("\n{{ raise_exception('bad \\x1b[31m role') }}"), "test: line 2: bad \\x1b[31m role");
}

TEST(ChatTemplate, TakesOddMessages) {
  const std::string loop = "{% for m in messages %}{{ m.role }}={{ m.content }};{% endfor %}";
  EXPECT_EQ(render(loop, Json::parse(R"([{"role": "a", "content": null}, {"content": [1, {"x": "y"}]}, {"role": 3}])")), "a=None;=[1, {'x': 'y'}];3=;");
  EXPECT_NE(error_of("{{ messages[0].tool_calls[0].function.name }}", Json::parse(R"([{"tool_calls": "x"}])")), "");
  EXPECT_NE(error_of("{{ messages[0].role }}", Json::array()), "");
  EXPECT_NE(error_of("x", Json::array({{{"content", "\xff\xfe"}}})), "");
  Json deep = "x";
  for (int i = 0; i < 200; ++i) deep = Json::array({deep});
  EXPECT_THAT(error_of("x", deep), ::testing::HasSubstr("deeper than"));
  Json many = Json::array();
  for (int i = 0; i < 10000; ++i) many.push_back({{"role", "user"}, {"content", "m"}});
  EXPECT_EQ(render(loop, many).size(), 10000u * 7);
}

TEST(ChatTemplate, FormatsTheTimeOfItsClock) {
  setenv("TZ", "UTC", 1);
  tzset();
  EXPECT_EQ(render("{{ strftime_now('%d %b %Y %H:%M:%S') }}"), "14 Nov 2023 22:13:20");
  EXPECT_EQ(render("{{ strftime_now('%f|%z|%Z|%%|%j') }}{{ strftime_now('') }}"), "000000|||%|318");
  for (const char* format : {"%9999999999d", "%", "%Q", "%E", "\xc3\xa9%Y", "%\xc3\xa9"})
    EXPECT_NO_FATAL_FAILURE(error_of(std::string("{{ strftime_now('") + format + "') }}"));
  EXPECT_NE(error_of("{{ strftime_now(3) }}"), "");
}

}  // namespace
}  // namespace frugal::text
