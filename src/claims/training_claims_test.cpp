// Claims of training on a tiny model, with few steps: what is measured is right, whatever it says of the methods.
#include <ATen/Parallel.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>

#include <fstream>

#include "base/error.h"
#include "base/team.h"
#include "claims/runner.h"
#include "models/test_tools.h"
#include "train/new_model.h"

namespace frugal::claims {
namespace {

using ::testing::HasSubstr;

class TrainingClaims : public ::testing::Test {
 protected:
  TrainingClaims() : runner_(steps_, setting()) {
    set_team_size(1);  // more would wait for each other, most of the time
    at::set_num_threads(1);
  }

  Setting setting() {
    const std::string model = folder_ / "T";
    train::write_new_model(
        model,
        Options("shape", train::shape_options(),
                {{"hidden_size", "32"}, {"num_hidden_layers", "2"}, {"num_key_value_heads", "2"}, {"intermediate_size", "48"}, {"initializer_range", "0.1"}}),
        models::TinyModels::get().path("llama"), 5);
    const auto write = [&](const std::string& name, int from) {
      std::ofstream file(folder_ / name);
      for (int i = from; i < from + 30; ++i) {
        for (int word = 0; word < 30; ++word) file << (word % 3 == 0 ? "river " : word % 3 == 1 ? "bridge " : std::to_string(i * word) + " ");
        file << "\n";
      }
    };
    write("learned.txt", 0);
    write("held-out.txt", 40);
    Setting setting;
    setting.training.path = [model](const std::string&) { return model; };
    setting.training.load = [](const std::string& path) { return models::Loader().load(path); };
    setting.training.texts = [this](const std::string&) { return Texts{folder_ / "learned.txt", folder_ / "held-out.txt"}; };
    setting.training.note = [this](const std::string& line) { notes_.push_back(line); };
    setting.training.work = folder_.path();
    return setting;
  }
  static Claim claim(std::vector<std::string> baseline, std::vector<std::string> method, const std::string& metric, TrainingBudget budget = {}) {
    Claim claim;
    claim.model = "T";
    claim.baseline = std::move(baseline);
    claim.method = std::move(method);
    claim.metric = metric;
    claim.training = std::move(budget);
    claim.training.batch_size = 2;
    claim.training.sequence_len = 32;
    claim.training.seeds = 2;
    return claim;
  }
  std::string error_of(const Claim& claim) {
    try {
      runner_.run(claim);
    } catch (const Error& error) {
      return fmt::format("{}: {}", to_string(error.kind()), error.what());
    }
    return "";
  }

  testing::TemporaryFolder folder_;
  std::vector<std::string> notes_;
  chain::StepTable steps_;
  Runner runner_;
};

TEST_F(TrainingClaims, TrainingLowersTheLossAndEachRunIsMadeOnce) {
  Claim trained = claim({}, {"adamw"}, "loss", {.steps = 20, .method_rates = {1e-5, 1e-2}});
  const Result result = runner_.run(trained);
  EXPECT_LT(result.method, 0.9 * result.baseline);
  EXPECT_EQ(result.method_rate, 1e-2) << "the better one";
  EXPECT_EQ(result.observations, 2);
  EXPECT_EQ(result.baseline_error, 0) << "the model as it is has no seed";
  EXPECT_GT(result.method_error, 0);
  EXPECT_EQ(notes_.size(), 3u) << "two rates, and another seed";
  EXPECT_THAT(notes_.back(), HasSubstr("adamw, 20 steps at rate 0.01, seed 1"));
  std::swap(trained.baseline, trained.method);
  std::swap(trained.training.baseline_rates, trained.training.method_rates);
  const Result turned = runner_.run(trained);
  EXPECT_EQ(turned.baseline, result.method);
  EXPECT_NEAR(turned.difference, -result.difference, 1e-12);
  EXPECT_EQ(notes_.size(), 3u);
}

TEST_F(TrainingClaims, ATrainingThatDivergesIsWorseThanAnyOther) {
  const std::vector<double> good = {1e-3}, bad = {1e30}, both = {1e30, 1e-3};
  const auto verdict_of = [&](const std::vector<double>& baseline, const std::vector<double>& method) {
    return runner_.run(claim({"adamw"}, {"sgd"}, "loss", {.steps = 6, .baseline_rates = baseline, .method_rates = method})).verdict;
  };
  EXPECT_EQ(verdict_of(good, bad), Verdict::fails);
  EXPECT_EQ(verdict_of(bad, good), Verdict::holds);
  EXPECT_EQ(verdict_of(bad, bad), Verdict::too_small);
  EXPECT_EQ(runner_.run(claim({"adamw"}, {"sgd"}, "loss", {.steps = 6, .baseline_rates = good, .method_rates = both})).method_rate, 1e-3);
  EXPECT_THAT(fmt::format("{}", fmt::join(notes_, " ")), HasSubstr("not finite"));
}

TEST_F(TrainingClaims, CountsWhatIsKeptAndWhatTrains) {
  const Result lion = runner_.run(claim({"adamw"}, {"lion"}, "state_bytes"));
  EXPECT_NEAR(lion.method / lion.baseline, 0.5, 0.01);
  EXPECT_EQ(lion.observations, 1);
  // A block's matrices: q and o 32 x 32, k and v 16 x 32, three of 48 x 32; beside each two of rank 4.
  const Result lora = runner_.run(claim({"full"}, {"lora:r=4"}, "trainable_parameters"));
  EXPECT_EQ(lora.method, 2 * 4 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48)));
  EXPECT_EQ(runner_.run(claim({"full"}, {"full", "lion"}, "trainable_parameters")).difference, 0);
  const Result kept = runner_.run(claim({"lora:r=4"}, {"lora-fa:r=4"}, "activation_bytes"));
  EXPECT_LT(kept.method, kept.baseline);
  EXPECT_GT(kept.method, 2 * 31 * 32 * 4) << "more than one row of floats a token";
  EXPECT_EQ(runner_.run(claim({"lora:r=4"}, {"lora:r=4"}, "activation_bytes")).difference, 0);
  // Gradients: all of a whole model's, or the tied embedding's and one more; of LISA's one block of two those beside it.
  const Result fused = runner_.run(claim({"sgd"}, {"lomo"}, "gradient_bytes"));
  const Result lisa = runner_.run(claim({"full"}, {"lisa:activated_layers=1"}, "gradient_bytes"));
  EXPECT_EQ(fused.baseline, 4 * runner_.run(claim({}, {"full"}, "trainable_parameters")).method);
  EXPECT_EQ(lisa.baseline, fused.baseline);
  EXPECT_LT(fused.method, lisa.method);
  EXPECT_LT(lisa.method, lisa.baseline);
  EXPECT_NEAR(runner_.run(claim({"full"}, {"lisa:activated_layers=1"}, "state_bytes")).method, 2 * lisa.method, 0.01 * lisa.method) << "two moments";
  EXPECT_TRUE(notes_.empty()) << "nothing has been trained for it";
}

TEST_F(TrainingClaims, MergedAndGrownModelsAreCompared) {
  Claim merged = claim({}, {"lora:r=4"}, "merge_difference", {.steps = 4, .method_rates = {1e-2}});
  merged.bound = 1e-4;
  EXPECT_EQ(runner_.run(merged).verdict, Verdict::holds);
  EXPECT_THAT(error_of(claim({}, {"adamw"}, "merge_difference", {.steps = 1, .method_rates = {1e-2}})), HasSubstr("is no adapter"));
  Claim grown = claim({}, {"staged:num_hidden_layers=4"}, "logits_difference");
  grown.bound = 1e-4;
  EXPECT_EQ(runner_.run(grown).verdict, Verdict::holds);
  grown.method = {"stacking"};
  EXPECT_EQ(runner_.run(grown).verdict, Verdict::fails) << "copies on top change the function";
}

TEST_F(TrainingClaims, FlopsCountWhatCameBeforeGrowth) {
  const TrainingBudget budget{.steps = 6, .new_blocks = 2, .steps_before_growth = 4, .baseline_rates = {1e-2}, .method_rates = {1e-2}};
  const Result same = runner_.run(claim({"full"}, {"full"}, "flops_to_loss", budget));
  EXPECT_EQ(same.difference, 0);
  Claim grown = claim({"full"}, {"stacking"}, "flops_to_loss", budget);
  const Result stacking = runner_.run(grown);
  EXPECT_EQ(stacking.baseline, same.baseline);
  EXPECT_GT(stacking.method, 0);
  grown.training.method_rates = {1e-9};
  const Result never = runner_.run(grown);
  EXPECT_EQ(never.verdict, Verdict::fails) << "a side that learns nothing has spent all it had";
  EXPECT_GT(never.method, 1.3 * never.baseline) << "6 steps, and 4 of half the blocks";
  EXPECT_LT(never.method, 1.7 * never.baseline);
}

TEST_F(TrainingClaims, StudentsLearnFromTheModelAndFromTheirPeers) {
  const TrainingBudget budget{.steps = 4, .new_blocks = 1, .baseline_rates = {1e-2}, .method_rates = {1e-2}};
  const Result distilled = runner_.run(claim({"full"}, {"kd-forward"}, "loss", budget));
  EXPECT_NE(distilled.difference, 0);
  const size_t runs = notes_.size();
  EXPECT_EQ(runs, 4u);
  Claim peers = claim({"full"}, {"babyllama"}, "loss", budget);
  peers.training.peers_teach = true;
  peers.training.seeds = 3;
  runner_.run(peers);
  EXPECT_EQ(notes_.size(), runs + 4) << "three students, and a third run alone";
  Claim policy = claim({"gkd:lmbda=0"}, {"gkd:lmbda=1,max_new_tokens=4"}, "rouge_l", budget);
  policy.training.shared_steps = 3;
  policy.lower_is_better = false;
  const Result written = runner_.run(policy);
  EXPECT_GE(written.method, 0);
  EXPECT_LE(written.method, 1);
  EXPECT_EQ(notes_.size(), runs + 4 + 2 + 4) << "what comes before is trained once a seed";
  Claim answers = claim({"full"}, {"seq-kd:max_new_tokens=4"}, "loss", budget);
  answers.training.rows = true;
  answers.training.sequence_len = 400;
  EXPECT_NE(runner_.run(answers).difference, 0);
}

TEST_F(TrainingClaims, NewModelsHaveTheirSidesShape) {
  TrainingBudget budget{.steps = 2, .new_blocks = 2, .baseline_rates = {1e-2}, .method_rates = {1e-2}};
  EXPECT_EQ(runner_.run(claim({"full"}, {"mobilellm-ls"}, "trainable_parameters", budget)).difference, 0);
  EXPECT_EQ(runner_.run(claim({"shape:intermediate_size=24"}, {"mobillama"}, "trainable_parameters", budget)).difference, 0) << "two of 24, one of 48";
  EXPECT_NE(runner_.run(claim({"full"}, {"mobilellm-ls"}, "loss", budget)).difference, 0);
  EXPECT_THAT(error_of(claim({"full"}, {"shape:intermediat_size=24"}, "trainable_parameters", budget)), HasSubstr("intermediate_size"));
  budget.new_blocks = 0;
  EXPECT_THAT(error_of(claim({"full"}, {"mobillama"}, "trainable_parameters", budget)), HasSubstr("new model"));
}

TEST_F(TrainingClaims, AnAdaptiveStudentIsEvaluatedOnTheWayAndItsTimeIsTaken) {
  TrainingBudget budget{.steps = 5, .new_blocks = 1, .shared_steps = 2, .baseline_rates = {1e-2}, .method_rates = {1e-2}};
  const std::vector<std::string> adaptive = {"distillm:init_threshold=0.5,capacity=4,max_new_tokens=4"};
  const Result time = runner_.run(claim({"gkd:lmbda=1,max_new_tokens=4"}, adaptive, "cpu_seconds", budget));
  EXPECT_GT(time.method, 0);
  EXPECT_GT(time.baseline, 0);
  EXPECT_NE(runner_.run(claim({"full"}, adaptive, "loss", budget)).difference, 0);
}

TEST_F(TrainingClaims, NewModelsBeginAsTheSideSaysAndMayBeTunedAtAnotherWidth) {
  const TrainingBudget budget{.steps = 3, .new_blocks = 1, .new_width = 64, .tuned_width = 16, .baseline_rates = {1e-3, 1e-2}, .method_rates = {1e-3, 1e-2}};
  const Result result = runner_.run(claim({"full"}, {"mup:base_width=16"}, "loss", budget));
  EXPECT_EQ(notes_.size(), 2u * (2 + 2)) << "a side: two rates at the narrow width, two seeds at the wide one";
  EXPECT_NE(result.difference, 0);
  const Result wide = runner_.run(claim({"full"}, {"rezero"}, "trainable_parameters", budget));
  EXPECT_EQ(wide.difference, 2 - 3 * 64) << "two scales in place of three norms";
  EXPECT_THAT(error_of(claim({"full"}, {"rezero"}, "loss", {.steps = 1, .baseline_rates = {1e-3}, .method_rates = {1e-3}})), HasSubstr("is of a new model"));
}

TEST_F(TrainingClaims, MistakesAreNamed) {
  EXPECT_THAT(error_of(claim({"adamw"}, {"adamw"}, "los")), ::testing::AllOf(HasSubstr("unsupported"), HasSubstr("did you mean \"loss\"")));
  EXPECT_THAT(error_of(claim({"adamm"}, {"adamw"}, "state_bytes")), HasSubstr("did you mean \"adamw\""));
  EXPECT_THAT(error_of(claim({"adamw", "lion"}, {"adamw"}, "state_bytes")), HasSubstr("do not go together"));
  EXPECT_THAT(error_of(claim({"full"}, {"adamw"}, "loss", {.steps = 1})), HasSubstr("no learning rate"));
}

TEST(Claims, RougeLIsTheFOfTheLongestCommonSubsequence) {
  EXPECT_DOUBLE_EQ(rouge_l(std::vector<int32_t>{1, 2, 3, 4}, std::vector<int32_t>{1, 2, 3, 4}), 1);
  EXPECT_DOUBLE_EQ(rouge_l(std::vector<int32_t>{1, 9, 3}, std::vector<int32_t>{1, 2, 3, 4, 5}), 2.0 * 2 / 8);  // 1 3
  EXPECT_DOUBLE_EQ(rouge_l(std::vector<int32_t>{4, 3, 2, 1}, std::vector<int32_t>{1, 2, 3, 4}), 2.0 * 1 / 8);
  EXPECT_DOUBLE_EQ(rouge_l(std::vector<int32_t>{5, 5}, std::vector<int32_t>{1}), 0);
  EXPECT_DOUBLE_EQ(rouge_l({}, std::vector<int32_t>{1}), 0);
}

template <typename T>
void check_claims(const MethodTable<T>& table) {
  const std::vector<std::string> known = metrics();
  for (const MethodRow<T>& row : table.rows()) {
    for (const Claim& claim : row.claims) {
      SCOPED_TRACE(row.id + ": " + claim.statement);
      EXPECT_THAT(known, ::testing::Contains(claim.metric));
      EXPECT_NO_THROW(parse_side(claim.baseline));
      EXPECT_NO_THROW(parse_side(claim.method));
      EXPECT_EQ(parse_step(claim.method.front()).id, row.id) << "the row's own method comes first";
      const TrainingBudget& budget = claim.training;
      EXPECT_EQ(claim.training.steps > 0, !budget.method_rates.empty());
      if (!claim.baseline.empty()) {
        EXPECT_EQ(budget.baseline_rates.size(), budget.method_rates.size()) << "both sides may try as many rates";
      }
    }
  }
}

TEST(Claims, OfTrainingCanBeRunAsTheyAreWritten) {
  check_claims(train::optimizer_table());
  check_claims(tune::adapter_table());
  check_claims(tune::layer_sampling_table());
  check_claims(distill::distill_table());
  check_claims(train::growth_table());
  check_claims(train::initialization_table());
}

}  // namespace
}  // namespace frugal::claims
