#include "cli/recipe.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "chain/chain.h"
#include "cli/step_table.h"

namespace frugal::cli {
namespace {

class RecipeTest : public ::testing::Test {
 protected:
  Recipe read(const std::string& text) {
    std::ofstream(path_) << text;
    return read_recipe(path_);
  }
  std::string error_of(const std::string& text) {
    try {
      read(text);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::invalid_input);
      return error.what();
    }
    return "";
  }
  void TearDown() override { std::filesystem::remove(path_); }
  std::string path_ = (std::filesystem::temp_directory_path() / fmt::format("recipe.{}.yaml", ::getpid())).string();
};

TEST_F(RecipeTest, StepsMayBeTextsOrMaps) {
  const Recipe recipe = read("calibration: {sequences: 8}\nchains:\n- name: a\n  steps: [wanda:sparsity=0.5, gptq: {bits: 4, group: 64}]\n- steps: [hqq]\n");
  ASSERT_EQ(recipe.chains.size(), 2u);
  EXPECT_EQ(recipe.chains[0].steps, (std::vector<std::string>{"wanda:sparsity=0.5", "gptq:bits=4,group=64"}));
  EXPECT_EQ(recipe.chains[1].name, "hqq");
  EXPECT_EQ(recipe.calibration.sequences, 8);
}

TEST_F(RecipeTest, MistakesAreNamed) {
  EXPECT_NE(error_of("chain: [rtn]\n").find("unknown key \"chain\", did you mean \"chains\"?"), std::string::npos);
  EXPECT_NE(error_of("steps: []\n").find("at least one step"), std::string::npos);
  EXPECT_NE(error_of("steps: [rtn]\nchains: []\n").find("either steps or chains"), std::string::npos);
  EXPECT_NE(error_of("chains:\n- {name: a, steps: [rtn]}\n- {name: a, steps: [hqq]}\n").find("used twice"), std::string::npos);
  EXPECT_NE(error_of("steps: [rtn]\ncalibration: {sequences: many}\n").find("must be an integer"), std::string::npos);
  EXPECT_NE(error_of("steps: [rtn\n"), "");
}

TEST(StepTable, EveryRowIsComplete) {
  const chain::StepTable table = joined_step_table();
  EXPECT_GE(table.rows().size(), 13u);
  for (const chain::StepRow& row : table.rows()) {
    EXPECT_FALSE(row.title.empty() || row.leaf.empty() || row.summary.empty() || row.arxiv.empty()) << row.id;
    EXPECT_NE(row.claims.empty(), row.reference.empty()) << row.id << ": either a claim, or why there is none";
    const chain::Step& step = row.function;
    EXPECT_NE(step.run_block == nullptr, step.run_model == nullptr) << row.id;
    EXPECT_EQ(step.scope == chain::StepScope::model, step.run_model != nullptr) << row.id;
    EXPECT_NO_THROW(Options(row.id, row.options, {})) << row.id << ": defaults are in range";
    for (const Claim& claim : row.claims) {
      EXPECT_NO_THROW(chain::parse_chain(table, claim.baseline)) << row.id;
      EXPECT_NO_THROW(chain::parse_chain(table, claim.method)) << row.id;
    }
  }
}

}  // namespace
}  // namespace frugal::cli
