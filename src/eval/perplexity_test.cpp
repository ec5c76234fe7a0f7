#include "eval/perplexity.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>

#include "base/error.h"
#include "eval/live_base.h"
#include "eval/logits_file.h"
#include "eval/speed.h"
#include "tiny_model.h"

namespace frugal::eval {
namespace {

using testing::random_tokens;
using testing::tiny_model;

class PerplexityTest : public ::testing::Test {
 protected:
  void SetUp() override {
    at::manual_seed(3);
    model_ = std::make_shared<nn::Model>(tiny_model());
    text_ = {"text", "hash", random_tokens(100, 61), 7};
  }
  std::string path_ = (std::filesystem::temp_directory_path() / fmt::format("frugal_logits.{}", ::getpid())).string();
  void TearDown() override { std::filesystem::remove(path_); }
  std::shared_ptr<nn::Model> model_;
  EvalText text_;
};

// The protocol written out: chunks of 16, BOS in place of the first token, positions 8..14 predict 9..15.
TEST_F(PerplexityTest, FollowsTheProtocolOfLlamaPerplexity) {
  double sum = 0, squares = 0;
  int64_t count = 0;
  for (int64_t chunk = 0; chunk < 6; ++chunk) {
    std::vector<int32_t> tokens(text_.tokens.begin() + chunk * 16, text_.tokens.begin() + chunk * 16 + 16);
    const std::vector<int32_t> targets = tokens;
    tokens[0] = 7;
    const at::Tensor logits = model_->forward(nn::Batch::single(tokens, nullptr)).logits.to(at::kDouble);
    for (int64_t j = 8; j < 15; ++j) {
      const double loss = (logits[j].logsumexp(0) - logits[j][targets[static_cast<size_t>(j + 1)]]).item<double>();
      sum += loss;
      squares += loss * loss;
      ++count;
    }
  }
  const Perplexity result = evaluate_perplexity(*model_, text_, {16, 0});
  const double mean = sum / static_cast<double>(count);
  EXPECT_EQ(result.chunks, 6);
  EXPECT_EQ(result.tokens, 42);
  EXPECT_NEAR(result.ln_perplexity, mean, 1e-5);
  EXPECT_NEAR(result.stderr_ / (std::exp(mean) * std::sqrt((squares / 42 - mean * mean) / 41)), 1, 1e-4);
}

TEST_F(PerplexityTest, DifferencesToABaseArePairedAndZeroToItself) {
  const LiveBase self(model_, text_, 16, 6);
  const Perplexity same = evaluate_perplexity(*model_, text_, {16, 0}, &self);
  EXPECT_EQ(*same.ln_ratio, 0);
  EXPECT_NEAR(*same.kl_mean, 0, 1e-7);
  EXPECT_EQ(*same.top1_agreement, 1);

  at::manual_seed(4);
  const nn::Model other = tiny_model();
  const Perplexity base = evaluate_perplexity(*model_, text_, {16, 0});
  const Perplexity changed = evaluate_perplexity(other, text_, {16, 0}, &self);
  EXPECT_NEAR(*changed.ln_ratio, changed.ln_perplexity - base.ln_perplexity, 1e-6);
  EXPECT_GT(*changed.kl_mean, 0.01);
  EXPECT_GT(*changed.ln_ratio_stderr, 0);
  EXPECT_LT(*changed.top1_agreement, 1);
}

TEST_F(PerplexityTest, ABaseInAFileGivesTheSameFiguresAsALiveOne) {
  LogitsWriter writer(path_, {16, 6, 61, "hash"});
  evaluate_perplexity(*model_, text_, {16, 0}, nullptr, [&](int64_t, const at::Tensor& log_p, const at::Tensor&) { writer.write(log_p); });
  EXPECT_FALSE(std::filesystem::exists(path_));
  writer.commit();
  const LogitsFile file(path_);
  EXPECT_EQ(file.header().text_hash, "hash");
  at::manual_seed(4);
  const nn::Model other = tiny_model();
  const LiveBase live(model_, text_, 16, 6);
  const Perplexity from_file = evaluate_perplexity(other, text_, {16, 0}, &file), from_live = evaluate_perplexity(other, text_, {16, 0}, &live);
  EXPECT_NEAR(*from_file.kl_mean, *from_live.kl_mean, 2e-3 * *from_live.kl_mean);
  EXPECT_NEAR(*from_file.ln_ratio, *from_live.ln_ratio, 2e-3);
}

TEST_F(PerplexityTest, BrokenLogitsFilesAreRefused) {
  {
    LogitsWriter writer(path_, {16, 6, 61, "hash"});
    writer.write(at::zeros({7, 61}));
    writer.commit();
  }
  EXPECT_THROW(LogitsFile{path_}, Error);  // one chunk of six
  std::ofstream(path_, std::ios::binary) << "frugal-logits-1\n" << std::string(88, '\xff');
  EXPECT_THROW(LogitsFile{path_}, Error);
  std::ofstream(path_, std::ios::binary) << "GGUF";
  EXPECT_THROW(LogitsFile{path_}, Error);
  for (const float value : {0.0f, 5.0f, -std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    LogitsWriter writer(path_, {16, 1, 61, "hash"});
    writer.write(at::full({7, 61}, value));
    writer.commit();
    EXPECT_THROW(LogitsFile{path_}.log_probabilities(0), Error) << value;
  }
}

TEST_F(PerplexityTest, TextsThatAreTooShortAndBasesThatDoNotFitAreRefused) {
  EXPECT_THROW(evaluate_perplexity(*model_, text_, {128, 0}), Error);
  EXPECT_THROW(evaluate_perplexity(*model_, text_, {16, 7}), Error);
  const LiveBase base(model_, text_, 16, 5);
  EXPECT_THROW(evaluate_perplexity(*model_, text_, {16, 6}, &base), Error);
}

TEST_F(PerplexityTest, SpeedIsCountedPerRepetition) {
  const SpeedResult result = measure_speed(*model_, {"pp32+tg4", 32, 4, 8, 16}, 3);
  EXPECT_EQ(result.tokens_per_second.size(), 3u);
  EXPECT_GT(result.mean(), 0);
  EXPECT_EQ(multiply_adds_per_token(*model_).wider, 2u * (40 * 40 * 2 + 2 * 8 * 40 + 3 * 72 * 40));
  EXPECT_EQ(multiply_adds_per_token(*model_).up_to_4_bits, 0u);
}

}  // namespace
}  // namespace frugal::eval
