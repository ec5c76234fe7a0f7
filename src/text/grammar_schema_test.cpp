// JSON Schema: the public test suite, random schemas judged by the `jsonschema` package, and what is refused.
#include <gmock/gmock.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <sstream>

#include "text/grammar_test_support.h"

namespace frugal::text {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// The value in every order of the members of its objects, at most `limit` texts: the grammar decides for one order.
std::vector<std::string> spellings(const Json& value, size_t limit = 5000) {
  if (value.is_number_float() && value.get<double>() == static_cast<double>(static_cast<int64_t>(value.get<double>())))
    return {fmt::format("{}", static_cast<int64_t>(value.get<double>()))};
  if (value.is_number_float()) return {value.dump(), fmt::format("{:.12f}", value.get<double>())};  // with an exponent, and without
  if (!value.is_structured()) return {value.dump()};
  std::vector<std::vector<std::string>> parts;
  for (const auto& [key, member] : value.items()) {
    parts.push_back(spellings(member, limit));
    for (std::string& text : parts.back()) text = (value.is_object() ? Json(key).dump() + ":" : "") + text;
  }
  std::vector<size_t> order(parts.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::vector<std::string> result;
  do {
    std::vector<std::string> texts = {""};
    for (const size_t i : order) {
      std::vector<std::string> longer;
      for (const std::string& text : texts) {
        for (const std::string& part : parts[i]) {
          if (longer.size() < limit) longer.push_back(text + (text.empty() ? "" : ",") + part);
        }
      }
      texts = std::move(longer);
    }
    for (const std::string& text : texts) result.push_back(value.is_object() ? "{" + text + "}" : "[" + text + "]");
  } while (value.is_object() && result.size() < limit && std::next_permutation(order.begin(), order.end()));
  return result;
}

bool accepts_in_some_order(const std::shared_ptr<const Grammar>& grammar, const Json& value) {
  const std::vector<std::string> texts = spellings(value);
  return std::any_of(texts.begin(), texts.end(), [&](const std::string& text) { return accepts(grammar, text); });
}

// Valid values that are not written: docs/grammar.md.
bool is_left_out(const std::string& test) {
  for (const char* part : {"leap second", "case-insensitive", "lowercase", "case-insensitivity", "valid leap", "a valid date-time with a second fraction of"}) {
    if (test.find(part) != std::string::npos) return true;
  }
  return false;
}

TEST(SchemaGrammar, UndeclaredMembersAreLeftOutWhereTheSchemaSaysNothingOfThem) {
  const auto both = [](const char* schema, const char* text) {
    return std::pair(accepts(Grammar::from_json_schema_text(schema), text), accepts(Grammar::from_json_schema_text(schema, Undeclared::left_out), text));
  };
  const std::pair dropped(true, false), kept(true, true);
  EXPECT_EQ(both(R"({"properties": {"a": {}}})", R"({"a":1,"b":2})"), dropped);
  EXPECT_EQ(both(R"({"properties": {"a": {}}})", R"({"a":1})"), kept);
  EXPECT_EQ(both(R"({"properties": {"a": {"properties": {"x": {}}}}})", R"({"a":{"y":1}})"), dropped);
  EXPECT_EQ(both(R"({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]})", R"({"a":1,"b":2})"), kept);
  EXPECT_EQ(both(R"({"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]})", R"({"a":1,"c":2})"), dropped);
  EXPECT_EQ(both(R"({"$defs": {"t": {"properties": {"a": {}}}}, "items": {"$ref": "#/$defs/t"}})", R"([{"b":1}])"), dropped);
  EXPECT_EQ(both(R"({"properties": {"a": {}}, "required": ["b"]})", R"({"a":1,"b":2})"), kept);
  for (const char* schema : {R"({"type": "object"})", R"({"properties": {"a": {}}, "additionalProperties": true})",
                             R"({"properties": {"a": {}}, "patternProperties": {"^b": {}}})"}) {
    EXPECT_EQ(both(schema, R"({"a":1,"b":2})"), kept) << schema;
  }
  // Branches that exclude each other only where undeclared members are thought of: still refused.
  const char* overlapping = R"({"oneOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"b": {"type": "integer"}}}]})";
  EXPECT_THROW(Grammar::from_json_schema_text(overlapping, Undeclared::left_out), Error);
}

TEST(SchemaGrammar, AgreesWithThePublicTestSuite) {
  const Json suite = read_json(FRUGAL_SOURCE_DIR "/tests/oracle/json_schema_suite.json");
  int schemas = 0, refused = 0, nothing = 0, values = 0, left_out = 0;
  for (const Json& group : suite["cases"]) {
    ++schemas;
    std::shared_ptr<const Grammar> grammar;
    const std::string error = error_of([&] { grammar = Grammar::from_json_schema(group["schema"]); });
    if (!grammar && error.find("no value at all") == std::string::npos) {
      EXPECT_THAT(error, ::testing::AnyOf(HasSubstr("unsupported: #"), HasSubstr("invalid input: #"))) << group["name"];
      ++refused;
      if (environment_or("FRUGAL_SHOW_REFUSED", "") != "") std::printf("%s\n    %s\n", group["name"].get<std::string>().c_str(), error.c_str());
      continue;
    }
    nothing += grammar == nullptr;
    for (const Json& test : group["tests"]) {
      const std::string name = group["name"].get<std::string>() + ": " + test[0].get<std::string>();
      const bool valid = test[2].get<bool>(), accepted = grammar && accepts_in_some_order(grammar, test[1]);
      ++values;
      if (valid && !accepted && is_left_out(name)) {
        ++left_out;
        continue;
      }
      EXPECT_EQ(accepted, valid) << name << "\n" << group["schema"].dump() << "\n" << test[1].dump();
    }
  }
  std::printf("%d schemas: %d refused, %d accept nothing; %d values, %d valid ones left out\n", schemas, refused, nothing, values, left_out);
  EXPECT_GT(schemas - refused, 250);
}

// A text of the grammar, or "" if the walk did not come to an end.
std::string random_text(const std::shared_ptr<const Grammar>& grammar, Rng& rng) {
  GrammarMatcher matcher(grammar, byte_vocabulary());
  std::vector<uint32_t> bits(9);
  std::string text;
  while (text.size() < 4000) {
    matcher.allowed(bits);
    const std::vector<int32_t> ids = ids_of(bits);
    if (has_bit(bits, 256) && (ids.size() == 1 || rng.below(2) == 0)) return text;
    const bool hurry = text.size() > 300;
    int32_t next = ids[rng.below(ids.size())];
    if (next == 256) continue;
    for (const char close : {'"', '}', ']'}) {
      if (has_bit(bits, close) && rng.below(hurry ? 10 : 3) != (hurry ? 0u : 1u) && (close == '"' ? text.back() != ',' : hurry)) next = close;
    }
    EXPECT_TRUE(matcher.accept(next)) << text;
    text += static_cast<char>(next);
  }
  return "";
}

TEST(SchemaGrammar, WritesOnlyWhatTheSchemaAllowsAndRefusesNothingValid) {
  Rng rng(test_seed());
  std::istringstream lines(run_oracle("make_schema_cases.py", fmt::format("--seed {} --count {}", test_seed(), environment_or("FRUGAL_SCHEMA_CASES", "400"))));
  const TemporaryFolder folder;
  const std::string path = folder / "samples";
  std::ofstream samples(path);
  int schemas = 0, refused = 0, nothing = 0, texts = 0, values = 0, valid_values = 0;
  for (std::string line; std::getline(lines, line);) {
    const Json test = parse_json(line, "case");
    ++schemas;
    std::shared_ptr<const Grammar> grammar;
    const std::string error = error_of([&] { grammar = Grammar::from_json_schema(test["schema"]); });
    const bool empty = error.find("no value at all") != std::string::npos;
    if (!grammar && !empty) {
      EXPECT_THAT(error, ::testing::AnyOf(HasSubstr("unsupported: #"), HasSubstr("leads back"))) << line;
      ++refused;
      continue;
    }
    nothing += empty;
    for (size_t i = 0; i < test["values"].size(); ++i, ++values) {
      const bool valid = test["valid"][i].get<bool>();
      valid_values += valid;
      EXPECT_EQ(grammar && accepts_in_some_order(grammar, test["values"][i]), valid) << test["schema"].dump() << "\n" << test["values"][i].dump();
    }
    for (int i = 0; grammar && i < 5; ++i) {
      const std::string text = random_text(grammar, rng);
      if (text.empty()) continue;
      samples << Json{{"schema", test["schema"]}, {"text", text}}.dump() << "\n";
      ++texts;
    }
  }
  samples.close();
  const std::string wrong = run_oracle("make_schema_cases.py", "--check " + path);
  EXPECT_EQ(wrong, "");
  std::printf("%d schemas: %d refused, %d accept nothing; %d values, %d of them valid; %d texts written\n", schemas, refused, nothing, values, valid_values,
              texts);
  EXPECT_GT(texts, schemas);
}

std::string schema_error(const std::string& text) {
  return error_of([&] { Grammar::from_json_schema_text(text); });
}

TEST(SchemaGrammar, NamesThePointerAndTheKeywordThatItRefuses) {
  const std::pair<const char*, const char*> unsupported[] = {
      {R"({"properties": {"age": {"type": "integer", "multipleOf": 3}}})", "#/properties/age/multipleOf"},
      {R"({"type": "array", "uniqueItems": true})", "#/uniqueItems"},
      {R"({"type": "array", "contains": {"type": "null"}})", "#/contains"},
      {R"({"not": {"type": "null"}})", "#/not"},
      {R"({"if": {}, "then": {"type": "null"}})", "#/if"},
      {R"({"type": "object", "propertyNames": {"pattern": "a"}})", "#/propertyNames"},
      {R"({"type": "object", "dependentRequired": {"a": ["b"]}})", "#/dependentRequired"},
      {R"({"type": "object", "unevaluatedProperties": false})", "#/unevaluatedProperties"},
      {R"({"type": "string", "format": "email"})", "#/format"},
      {R"s({"type": "string", "pattern": "a(?=b)"})s", "#/pattern"},
      {R"({"items": {"$ref": "http://example.org/x.json"}})", "#/items/$ref"},
      {R"({"$ref": "other.json#/a"})", "#/$ref"},
      {R"({"$ref": "#name", "$defs": {"x": {"$anchor": "name"}}})", "#/$ref"},
      {R"({"a/b~c": 1, "properties": {}})", "#/a/b~c"},
      {R"({"properties": {"a/b": {"maxLenght": 3}}})", "#/properties/a~1b/maxLenght"},
      {R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})", "#/oneOf"},
      {R"({"type": "object", "minProperties": 3})", "#/minProperties"},
      {R"({"$schema": "http://example.org/mine"})", "#/$schema"},
  };
  for (const auto& [schema, pointer] : unsupported) EXPECT_THAT(schema_error(schema), HasSubstr(std::string("unsupported: ") + pointer)) << schema;
  const std::pair<const char*, const char*> invalid[] = {
      {R"({"type": "strnig"})", "#/type"},
      {R"({"type": 3})", "#/type"},
      {R"({"type": []})", "#/type"},
      {R"({"type": "string", "minLength": -1})", "#/minLength"},
      {R"({"type": "string", "maxLength": 1.5})", "#/maxLength"},
      {R"({"type": "string", "maxLength": 1000000000})", "#/maxLength"},
      {R"({"type": "array", "maxItems": 1000000000})", "#/maxItems"},
      {R"({"type": "string", "pattern": "["})", "#/pattern"},
      {R"({"type": "string", "pattern": 5})", "#/pattern"},
      {R"({"enum": []})", "#/enum"},
      {R"({"anyOf": []})", "#/anyOf"},
      {R"({"properties": {"a": 1}})", "#/properties/a"},
      {R"({"properties": []})", "#/properties"},
      {R"({"type": "integer", "minimum": "1"})", "#/minimum"},
      {R"({"$ref": "#/$defs/missing"})", "#/$ref"},
      {R"({"$ref": "#"})", "#/$ref"},
      {R"({"allOf": [{"$ref": "#"}]})", "#/allOf/0/$ref"},
      {R"({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}})", "#/$defs/b/$ref"},
      {R"([])", "schema: #"},
  };
  for (const auto& [schema, pointer] : invalid) EXPECT_THAT(schema_error(schema), AllOf(HasSubstr("invalid input: "), HasSubstr(pointer))) << schema;
  for (const char* schema :
       {"false", R"({"enum": ["a"], "type": "integer"})", R"({"type": "integer", "minimum": 3, "maximum": 2})",
        R"({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0})", R"({"type": "string", "minLength": 3, "maxLength": 2})",
        R"({"allOf": [{"type": "null"}, {"type": "string"}]})", R"({"type": "object", "properties": {"a": false}, "required": ["a"]})",
        R"({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})", R"({"type": "string", "pattern": "^a{3}$", "maxLength": 2})"}) {
    EXPECT_THAT(schema_error(schema), HasSubstr("no value at all")) << schema;
  }
  EXPECT_EQ(schema_error(R"({"type": "string", "multipleOf": 3, "uniqueItems": true, "title": 4, "x-order": []})"), "") << "says nothing about strings";
}

TEST(SchemaGrammar, ABranchThatAsksForItsOwnSchemaIsNoWayToAnything) {
  EXPECT_THAT(schema_error(R"({"anyOf": [{"$ref": "#"}]})"), HasSubstr("#/anyOf/0/$ref"));
  EXPECT_THAT(schema_error(R"({"oneOf": [{"anyOf": [{"$ref": "#"}, {"type": "null"}]}]})"), HasSubstr("leads back"));
  EXPECT_EQ(schema_error(R"({"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#"}}]})"), "");
}

TEST(SchemaGrammar, KeepsAdditionalNamesApartFromDeclaredOnesInAnySpelling) {
  const auto grammar = Grammar::from_json_schema_text(R"({"properties": {"ab": {"type": "integer"}, "a\"": {"type": "null"}}, "type": "object"})");
  EXPECT_TRUE(accepts(grammar, R"({"ab": 1, "a\"": null, "abc": "x", "": [], "a": {}})"));
  EXPECT_TRUE(accepts(grammar, R"({"a\"b": "x"})"));
  for (const char* text : {R"({"ab": "x"})", R"({"\u0061b": "x"})", R"({"ab": 1, "ab": "x"})", R"({"a\"": 1})", R"({"x": 1, "ab": 1})", R"({"a\u0022": 1})"}) {
    EXPECT_FALSE(accepts(grammar, text)) << text;
  }
}

TEST(SchemaGrammar, BoundsTheWhitespaceBetweenTokens) {
  const auto grammar = Grammar::json_object();
  EXPECT_TRUE(accepts(grammar, "{\n  \"a\": [\n    1,\n    {}\n  ],\n\t\"b\": \"\\u00e9\\ud83d\\ude00\"\n}"));
  for (const char* text : {"{  }", "{\n\n}", " {}", "{} ", "{}\n", "{\"a\" :1}", "{\"a\":1 ,\"b\":2}", "{\"a\":\"\\ud83d\"}", "{\"a\":\"\n\"}", "[1]",
                           "{\"a\":01}", "{\"a\":.5}", "{\"a\":1,}"}) {
    EXPECT_FALSE(accepts(grammar, text)) << text;
  }
  EXPECT_TRUE(accepts(grammar, "{\n" + std::string(32, ' ') + "}"));
  EXPECT_FALSE(accepts(grammar, "{\n" + std::string(33, ' ') + "}"));
}

TEST(SchemaGrammar, CountsLongStringsAndListsWithoutUnrolling) {
  const auto text = Grammar::from_json_schema_text(R"({"type": "string", "minLength": 99999, "maxLength": 100000})");
  for (const auto& [length, expected] : {std::pair{99'998, false}, {99'999, true}, {100'000, true}, {100'001, false}}) {
    std::string value = "\"";
    for (int i = 0; i < length; ++i) value += i % 3 == 0 ? "\u4e2d" : i % 3 == 1 ? "\\n" : "a";
    EXPECT_EQ(accepts(text, value + "\""), expected) << length;
  }
  const auto list = Grammar::from_json_schema_text(R"({"type": "array", "items": {"type": "integer"}, "maxItems": 1000})");
  std::string value = "[1";
  for (int i = 1; i < 1000; ++i) value += ",1";
  EXPECT_TRUE(accepts(list, value + "]"));
  EXPECT_FALSE(accepts(list, value + ",1]"));
}

}  // namespace
}  // namespace frugal::text
