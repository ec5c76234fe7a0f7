// The sampler against naive definitions in double precision, with chi-square tests of the draws (fixed seeds).
#include "engine/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "base/error.h"
#include "engine/stop_matcher.h"

namespace frugal::engine {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

std::vector<float> random_logits(Rng& rng, size_t size, double spread) {
  std::vector<float> out(size);
  for (float& x : out) x = static_cast<float>(rng.normal() * spread);
  return out;
}

std::vector<double> softmax(const std::vector<double>& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> out;
  for (const double x : logits) out.push_back(std::exp(x - largest));
  const double sum = std::accumulate(out.begin(), out.end(), 0.0);
  for (double& x : out) x /= sum;
  return out;
}
std::vector<double> softmax(const std::vector<float>& logits) { return softmax(std::vector<double>(logits.begin(), logits.end())); }

// Indices by falling value.
std::vector<size_t> ranked(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] > values[b]; });
  return order;
}

std::vector<double> renormalized(std::vector<double> p, const std::vector<bool>& keep) {
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) sum += keep[i] ? p[i] : 0;
  for (size_t i = 0; i < p.size(); ++i) p[i] = keep[i] ? p[i] / sum : 0;
  return p;
}

// The head of `order` until the sum of p reaches `share`.
std::vector<double> nucleus(const std::vector<double>& p, const std::vector<size_t>& order, double share) {
  std::vector<bool> keep(p.size(), false);
  double sum = 0;
  for (const size_t i : order) {
    if (sum >= share) break;
    keep[i] = true;
    sum += p[i];
  }
  return renormalized(p, keep);
}

// Draws must come from this distribution: nothing outside its support, chi-square within five standard deviations.
void expect_distribution(const SamplingParams& params, const std::vector<float>& logits, const std::vector<double>& expected, int draws = 20000) {
  Sampler sampler(params, static_cast<int64_t>(logits.size()), 12345);
  std::vector<int> counts(logits.size(), 0);
  for (int i = 0; i < draws; ++i) {
    std::vector<float> row = logits;
    ++counts[static_cast<size_t>(sampler.sample(row))];
  }
  double chi = 0, rest_expected = 0;
  int degrees = -1, rest = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double want = expected[i] * draws;
    if (expected[i] == 0) {
      EXPECT_EQ(counts[i], 0) << "token " << i << " should be impossible";
    }
    if (want < 10) {
      rest_expected += want;
      rest += counts[i];
      continue;
    }
    chi += (counts[i] - want) * (counts[i] - want) / want;
    ++degrees;
  }
  if (rest_expected >= 10) {
    chi += (rest - rest_expected) * (rest - rest_expected) / rest_expected;
    ++degrees;
  }
  EXPECT_LT(chi, degrees + 5 * std::sqrt(2.0 * std::max(degrees, 1)) + 5) << degrees << " degrees of freedom";
}

SamplingParams only(SamplerKind kind) {
  SamplingParams params;
  params.samplers = {kind};
  return params;
}

TEST(Sampler, DrawsFromTheSoftmaxByDefault) {
  Rng rng(1);
  const auto logits = random_logits(rng, 50, 2);
  expect_distribution({}, logits, softmax(logits));
}

TEST(Sampler, KeepsTheTopK) {
  Rng rng(2);
  const auto logits = random_logits(rng, 50, 1);
  SamplingParams params = only(SamplerKind::top_k);
  params.top_k = 7;
  const auto p = softmax(logits);
  std::vector<bool> keep(50, false);
  const auto order = ranked(p);
  for (size_t i = 0; i < 7; ++i) keep[order[i]] = true;
  expect_distribution(params, logits, renormalized(p, keep));
}

TEST(Sampler, KeepsTheNucleus) {
  Rng rng(3);
  for (const double share : {0.1, 0.5, 0.9}) {
    const auto logits = random_logits(rng, 60, 1.5);
    SamplingParams params = only(SamplerKind::top_p);
    params.top_p = static_cast<float>(share);
    const auto p = softmax(logits);
    expect_distribution(params, logits, nucleus(p, ranked(p), params.top_p));
  }
}

TEST(Sampler, FindsAWideNucleusOfALargeVocabulary) {
  Rng rng(4);
  const auto logits = random_logits(rng, 5000, 0.3);  // the nucleus has thousands of tokens: the head grows
  SamplingParams params = only(SamplerKind::top_p);
  params.top_p = 0.7f;
  const auto p = softmax(logits);
  expect_distribution(params, logits, nucleus(p, ranked(p), params.top_p), 1500);
}

TEST(Sampler, KeepsTokensLikelyRelativeToTheLargest) {
  Rng rng(5);
  const auto logits = random_logits(rng, 60, 1.5);
  SamplingParams params = only(SamplerKind::min_p);
  params.min_p = 0.2f;
  const auto p = softmax(logits);
  const double largest = *std::max_element(p.begin(), p.end());
  std::vector<bool> keep;
  for (const double x : p) keep.push_back(x >= 0.2 * largest);
  expect_distribution(params, logits, renormalized(p, keep));
}

TEST(Sampler, KeepsTheTypicalTokens) {
  Rng rng(6);
  const auto logits = random_logits(rng, 100, 1.5);
  SamplingParams params = only(SamplerKind::typical_p);
  params.typical_p = 0.4f;
  const auto p = softmax(logits);
  double entropy = 0;
  for (const double x : p) entropy -= x * std::log(x);
  std::vector<double> closeness;
  for (const double x : p) closeness.push_back(-std::fabs(-std::log(x) - entropy));
  expect_distribution(params, logits, nucleus(p, ranked(closeness), params.typical_p));
}

TEST(Sampler, KeepsLogitsWithinNStandardDeviations) {
  Rng rng(7);
  const auto logits = random_logits(rng, 60, 1.5);
  SamplingParams params = only(SamplerKind::top_n_sigma);
  params.top_n_sigma = 1.25f;
  double mean = 0, variance = 0;
  for (const float x : logits) mean += x / 60.0;
  for (const float x : logits) variance += (x - mean) * (x - mean) / 60.0;
  const double limit = *std::max_element(logits.begin(), logits.end()) - 1.25 * std::sqrt(variance);
  std::vector<bool> keep;
  for (const float x : logits) keep.push_back(x >= limit);
  expect_distribution(params, logits, renormalized(softmax(logits), keep));
}

TEST(Sampler, ExcludesTopChoicesByChance) {
  const std::vector<float> logits = {std::log(0.4f), std::log(0.3f), std::log(0.2f), std::log(0.06f), std::log(0.04f)};
  SamplingParams params = only(SamplerKind::xtc);
  params.xtc_probability = 0.5f;
  params.xtc_threshold = 0.15f;
  // In half of the draws 0.4 and 0.3 are gone and the rest is renormalized.
  expect_distribution(params, logits, {0.2, 0.15, 0.1 + 0.5 * 0.2 / 0.3, 0.03 + 0.5 * 0.06 / 0.3, 0.02 + 0.5 * 0.04 / 0.3});
}

TEST(Sampler, ScalesByTemperatureAndEntropy) {
  Rng rng(8);
  const auto logits = random_logits(rng, 40, 2);
  SamplingParams params = only(SamplerKind::temperature);
  params.temp = 0.6f;
  std::vector<double> scaled;
  for (const float x : logits) scaled.push_back(x / 0.6);
  expect_distribution(params, logits, softmax(scaled));

  params.temp = 1;
  params.dynatemp_range = 0.5f;
  params.dynatemp_exp = 2;
  double entropy = 0;
  for (const double x : softmax(logits)) entropy -= x * std::log(x);
  const double temperature = 0.5 + std::pow(entropy / std::log(40.0), 2.0);
  scaled.clear();
  for (const float x : logits) scaled.push_back(x / temperature);
  expect_distribution(params, logits, softmax(scaled));
}

TEST(Sampler, RunsTheChainInItsOrder) {
  // p = .5 .3 .2: top-p 0.6 keeps two; after top-k 1 it keeps one; temperature first changes what top-p keeps.
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  SamplingParams params;
  params.top_p = 0.6f;
  params.temp = 0.25f;
  params.samplers = parse_samplers("top_p;temperature");
  const double a = std::pow(0.5, 4), b = std::pow(0.3, 4);
  expect_distribution(params, logits, {a / (a + b), b / (a + b), 0});
  params.samplers = parse_samplers("temperature,top-p");
  expect_distribution(params, logits, {1, 0, 0});
}

TEST(Sampler, TakesTheLargestLogitAtTemperatureZero) {
  SamplingParams params;
  params.temp = 0;
  params.top_k = 3;
  Sampler sampler(params, 4, 1);
  std::vector<float> row = {0.1f, 0.9f, NAN, 0.9f};
  EXPECT_EQ(sampler.sample(row), 1);  // the first of equals
}

TEST(Sampler, PenalizesRepetitionsInItsWindow) {
  SamplingParams params;
  params.temp = 0;
  params.repeat_last_n = 3;
  params.repeat_penalty = 2;
  params.presence_penalty = 0.5f;
  params.frequency_penalty = 0.25f;
  Sampler sampler(params, 5, 1);
  for (const int32_t id : {4, 0, 1, 0}) sampler.accept(id);  // 4 is out of the window
  std::vector<float> row = {2, -1, 3, 4, 5};
  sampler.sample(row);
  EXPECT_THAT(row, testing::ElementsAre(2 / 2.0f - 0.5f - 0.5f, -2 - 0.5f - 0.25f, 3, 4, 5));
}

TEST(Sampler, AddsBiasAndBans) {
  SamplingParams params;
  params.logit_bias = parse_logit_bias("0+1.5,2-inf,1-3,3=2");
  params.temp = 0;
  Sampler sampler(params, 4, 1);
  std::vector<float> row = {0, 0, 100, 0};
  EXPECT_EQ(sampler.sample(row), 3);
  EXPECT_THAT(row, testing::ElementsAre(1.5f, -3, kMinusInfinity, 2));
  EXPECT_THROW(Sampler(params, 3, 1), Error);
}

// What DRY takes from each token, by the definition: every earlier end, counted back token by token.
std::vector<double> dry_penalties(const std::vector<int32_t>& history, const SamplingParams& params, size_t vocab) {
  std::vector<double> out(vocab, 0);
  const auto breaks = [&](int32_t id) { return std::count(params.dry_breakers.begin(), params.dry_breakers.end(), id) > 0; };
  const size_t n = history.size();
  for (size_t next = 1; next < n; ++next) {
    size_t length = 0;
    while (length < next && history[next - 1 - length] == history[n - 1 - length] && !breaks(history[n - 1 - length])) ++length;
    if (length == 0 || length < static_cast<size_t>(params.dry_allowed_length) || breaks(history[next])) continue;
    double& slot = out[static_cast<size_t>(history[next])];
    slot = std::max(slot, params.dry_multiplier * std::pow(static_cast<double>(params.dry_base), static_cast<double>(length) - params.dry_allowed_length));
  }
  return out;
}

TEST(Sampler, PenalizesTheContinuationOfRepeatedSequences) {
  Rng rng(9);
  for (int round = 0; round < 50; ++round) {
    SamplingParams params;
    params.temp = 0;
    params.dry_multiplier = 0.8f;
    params.dry_allowed_length = static_cast<int32_t>(rng.below(4));
    if (round % 2) params.dry_breakers = {3};
    Sampler sampler(params, 5, 1);
    std::vector<int32_t> history;
    for (int i = 0; i < 40; ++i) {
      history.push_back(static_cast<int32_t>(rng.below(4)));
      sampler.accept(history.back());
    }
    std::vector<float> row(5, 0);
    sampler.sample(row);
    const auto expected = dry_penalties(history, params, 5);
    for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(row[i], -expected[i], 1e-4 * (1 + expected[i])) << "round " << round << " token " << i;
  }
}

TEST(Sampler, MirostatHoldsTheSurprise) {
  Rng rng(10);
  std::vector<float> logits(2000);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = -1.1f * std::log(static_cast<float>(i + 1));  // Zipf
  for (const int version : {1, 2}) {
    for (const double target : {2.0, 4.0}) {
      SamplingParams params;
      params.mirostat = version;
      params.mirostat_ent = static_cast<float>(target);
      Sampler sampler(params, 2000, 7);
      double surprise = 0;
      const auto p = softmax(logits);
      for (int i = 0; i < 1500; ++i) {
        std::vector<float> row = logits;
        surprise -= std::log2(p[static_cast<size_t>(sampler.sample(row))]) / 1500;
      }
      EXPECT_GT(surprise, target) << version;  // the surprise in the whole distribution is the kept one plus what the cut takes
      EXPECT_LT(surprise, target + 3.5) << version;
    }
  }
}

TEST(Sampler, RepeatsItselfWithASeed) {
  Rng rng(11);
  const auto logits = random_logits(rng, 1000, 1);
  SamplingParams params;
  params.top_p = 0.95f;
  params.xtc_probability = 0.5f;
  const auto run = [&](uint64_t seed) {
    Sampler sampler(params, 1000, seed);
    std::vector<int32_t> out;
    for (int i = 0; i < 100; ++i) {
      std::vector<float> row = logits;
      out.push_back(sampler.sample(row));
      sampler.accept(out.back());
    }
    return out;
  };
  EXPECT_EQ(run(5), run(5));
  EXPECT_NE(run(5), run(6));
  EXPECT_EQ(resolved_seed(7), 7u);
}

TEST(Sampler, SurvivesOddRows) {
  Sampler sampler({}, 3, 1);
  std::vector<float> row = {kMinusInfinity, NAN, 1};
  EXPECT_EQ(sampler.sample(row), 2);
  row = {std::numeric_limits<float>::infinity(), 0, NAN};
  EXPECT_EQ(sampler.sample(row), 0);
  row = {kMinusInfinity, NAN, kMinusInfinity};
  EXPECT_THROW(sampler.sample(row), Error);
  SamplingParams params;
  params.mirostat = 1;
  Sampler flat(params, 3, 1);
  for (int i = 0; i < 50; ++i) {
    row = {0, 0, 0};
    EXPECT_LT(flat.sample(row), 3);
  }
  EXPECT_THROW(sampler.accept(3), Error);
  EXPECT_THROW(sampler.accept(-1), Error);
}

TEST(SamplingOptions, AreNeutralByDefault) {
  const SamplingParams params = sampling_params(Options("sampling", sampling_options(), {}));
  EXPECT_EQ(params.temp, 1);
  EXPECT_EQ(params.top_p, 1);
  EXPECT_EQ(params.top_k, 0);
  EXPECT_EQ(params.min_p, 0);
  EXPECT_EQ(params.samplers, SamplingParams().samplers);
  Rng rng(12);
  const auto logits = random_logits(rng, 30, 1);
  expect_distribution(params, logits, softmax(logits), 5000);
}

TEST(SamplingOptions, RefuseValuesOutsideTheirRanges) {
  const auto parse = [](const std::string& name, const std::string& value) {
    return sampling_params(Options("sampling", sampling_options(), {{name, value}}));
  };
  for (const auto& [name, values] :
       std::map<std::string, std::vector<std::string>>{{"temp", {"-0.1", "2.1", "nan", "1e308", ""}},
                                                       {"top-p", {"0", "-1", "1.1"}},
                                                       {"min-p", {"-0.1", "1.1"}},
                                                       {"top-k", {"-2", "0.01", "2147483648"}},
                                                       {"presence-penalty", {"2.1", "-2.1"}},
                                                       {"repeat-penalty", {"0", "nan"}},
                                                       {"logit-bias", {"AI+1", "-1+1", "1e3+1", " 1+1", "1+nan", "1+101", "1", "+", "1+"}},
                                                       {"samplers", {"top_q", "top_k;top_k"}},
                                                       {"mirostat", {"3", "-1"}},
                                                       {"seed", {"-2", "1.5", "9223372036854775808"}},
                                                       {"ignore-eos", {"maybe"}},
                                                       {"nothing", {"1"}}}) {
    for (const std::string& value : values) EXPECT_THROW(parse(name, value), Error) << name << " " << value;
  }
  EXPECT_EQ(parse("top-k", "-1").top_k, -1);
  EXPECT_EQ(parse("top-k", "999999").top_k, 999999);
  EXPECT_TRUE(parse("ignore-eos", "true").ignore_eos);
  EXPECT_THAT(parse("samplers", "min-p,temp").samplers, testing::ElementsAre(SamplerKind::min_p, SamplerKind::temperature));
  std::string many = "0+1";
  for (int i = 1; i <= 1024; ++i) many += "," + std::to_string(i) + "+1";
  EXPECT_THROW(parse("logit-bias", many), Error);
}

TEST(StopMatcher, GivesTheTextBeforeTheFirstStopHoweverItIsCut) {
  Rng rng(13);
  for (int round = 0; round < 500; ++round) {
    const auto word = [&](size_t size) {
      std::string out;
      for (size_t i = 0; i < size; ++i) out += static_cast<char>('a' + rng.below(2));
      return out;
    };
    const std::string text = word(rng.below(40));
    const std::vector<std::string> stops = {word(1 + rng.below(5)), word(3 + rng.below(5)), ""};
    size_t first = std::string::npos;  // start of the match that ends first, the longer one of two
    for (size_t end = 1; end <= text.size() && first == std::string::npos; ++end) {
      for (const std::string& stop : stops) {
        if (!stop.empty() && text.substr(0, end).ends_with(stop)) first = std::min(first, end - stop.size());
      }
    }
    StopMatcher matcher(stops);
    std::string got;
    for (size_t at = 0; at < text.size();) {
      const size_t size = 1 + rng.below(4);
      got += matcher.push(text.substr(at, size));
      EXPECT_TRUE(text.starts_with(got));
      at += size;
    }
    EXPECT_EQ(matcher.stopped(), first != std::string::npos);
    got += matcher.flush();
    EXPECT_EQ(got, text.substr(0, first)) << text << " stops " << stops[0] << " " << stops[1];
  }
}

}  // namespace
}  // namespace frugal::engine
