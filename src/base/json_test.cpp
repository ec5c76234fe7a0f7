#include "base/json.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace frugal {
namespace {

TEST(Json, KeepsTheOrderOfKeysAndTheKindOfNumbers) {
  const Json value = parse_json(R"({"b": 18446744073709551615, "a": -1, "c": 1.5, "d": [1, {"e": null}]})", "x");
  EXPECT_EQ(value.dump(), R"({"b":18446744073709551615,"a":-1,"c":1.5,"d":[1,{"e":null}]})");
}

TEST(Json, RefusesWhatItCannotReadExactly) {
  for (const char* text : {"", "{", "[1,]", "{\"a\":1,}", "{'a':1}", "NaN", "[Infinity]", "1e999", "// c\n1", "1 2", "\"\\ud800\"", "\"\xff\"",
                           "\xEF\xBB\xBF{}", "{\"a\":1,\"a\":2}", "{\"a\":{\"b\":1,\"c\":2,\"b\":3}}"}) {
    EXPECT_THROW(parse_json(text, "x"), Error) << text;
  }
}

TEST(Json, ANulByteDoesNotHideWhatFollows) { EXPECT_THROW(parse_json(std::string_view("{}\0xyz", 6), "x"), Error); }

TEST(Json, DepthIsBoundedWithoutRecursion) {
  EXPECT_NO_THROW(parse_json(std::string(64, '[') + std::string(64, ']'), "x"));
  EXPECT_THROW(parse_json(std::string(65, '[') + std::string(65, ']'), "x"), Error);
  EXPECT_THROW(parse_json(std::string(1000000, '['), "x"), Error);
}

TEST(Json, TypedAccessNamesThePath) {
  const Json value = parse_json(R"({"a": {"n": 3, "big": 18446744073709551615, "f": 1.5, "s": "x", "z": null}})", "config.json");
  const JsonObject object = JsonObject(value, "config.json").object("a");
  EXPECT_EQ(object.integer("n", 1, 3), 3);
  EXPECT_EQ(object.integer_or("z", 7, 0, 9), 7);
  EXPECT_DOUBLE_EQ(object.number("f", 0, 2), 1.5);
  EXPECT_THROW(object.integer("big", 0, INT64_MAX), Error);
  EXPECT_THROW(object.integer("f", 0, 9), Error);
  EXPECT_THROW(object.number("f", 2, 3), Error);
  try {
    object.integer("n", 4, 9);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "config.json.a.n: must be an integer in 4..9, is 3");
  }
}

}  // namespace
}  // namespace frugal
