#include "base/options.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/method_table.h"

namespace frugal {
namespace {

const std::vector<OptionSpec> kSpecs = {
    integer_option("bits", 4, 2, 8, "bits per weight"),
    number_option("damping", 0.01, 0, 1, "share of the mean diagonal"),
    boolean_option("symmetric", false, "no zero point"),
    choice_option("order", "none", {"none", "activation"}, "column order"),
};

std::string error_of(const std::string& step) {
  try {
    const StepText text = parse_step(step);
    Options(text.id, kSpecs, text.options);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::invalid_input);
    return error.what();
  }
  return "";
}

TEST(Options, GivenAndDefaultValuesAreTyped) {
  const StepText text = parse_step("gptq:order=activation,bits=3");
  const Options options(text.id, kSpecs, text.options);
  EXPECT_EQ(options.integer("bits"), 3);
  EXPECT_DOUBLE_EQ(options.number("damping"), 0.01);
  EXPECT_FALSE(options.boolean("symmetric"));
  EXPECT_EQ(options.text("order"), "activation");
  EXPECT_EQ(options.canonical(), "bits=3,order=activation");
}

TEST(Options, WrongNamesAndValuesSayTheRuleAndTheNearestName) {
  EXPECT_EQ(error_of("gptq:bit=3"), "gptq has no option \"bit\", did you mean \"bits\"?");
  EXPECT_EQ(error_of("gptq:bits=9"), "gptq: option bits must be in 2..8, is 9");
  EXPECT_EQ(error_of("gptq:bits= 3"), "gptq: option bits must be an integer, is \" 3\"");
  EXPECT_EQ(error_of("gptq:damping=nan"), "gptq: option damping must be a finite number, is \"nan\"");
  EXPECT_EQ(error_of("gptq:order=activaton"), "gptq: option order must be one of none, activation, is \"activaton\", did you mean \"activation\"?");
  EXPECT_EQ(error_of("gptq:bits=3,bits=4"), "gptq: option bits is given twice");
  EXPECT_NE(error_of("gptq:bits"), "");
  EXPECT_NE(error_of(":bits=3"), "");
  EXPECT_NE(error_of("gptq:"), "");
}

TEST(MethodTable, UnknownIdsGetTheNearestOneAndDuplicatesAreOurBug) {
  MethodTable<int> table({{"gptq", "GPTQ", "quantize", "2210.17323", "", {}, 1, {}, ""}});
  EXPECT_EQ(table.at("gptq").function, 1);
  try {
    table.at("gtpq");
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "no method \"gtpq\"");
  }
  try {
    table.at("gpt");
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "no method \"gpt\", did you mean \"gptq\"?");
  }
  EXPECT_THROW(table.append({{"gptq", "", "", "", "", {}, 2, {}, ""}}), Error);
}

}  // namespace
}  // namespace frugal
