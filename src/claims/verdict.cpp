#include "claims/verdict.h"

#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"

namespace frugal::claims {
namespace {

struct Mean {
  double mean = 0, error = 0;
};

Mean mean_of(std::span<const double> values) {
  const auto count = static_cast<double>(values.size());
  Mean result;
  for (const double value : values) result.mean += value / count;
  double squares = 0;
  for (const double value : values) squares += std::pow(value - result.mean, 2);
  if (values.size() > 1 && std::isfinite(result.mean)) result.error = std::sqrt(squares / (count - 1) / count);
  return result;
}

}  // namespace

std::string to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::holds: return "holds";
    case Verdict::fails: return "fails";
    case Verdict::too_small: return "too_small";
  }
  return "";
}

std::string describe(Verdict verdict) {
  switch (verdict) {
    case Verdict::holds: return "holds";
    case Verdict::fails: return "does not hold here";
    case Verdict::too_small: return "too small to tell";
  }
  return "";
}

double confidence(double standard_error, int64_t observations) {
  if (observations < 2) return 0;
  const boost::math::students_t distribution(static_cast<double>(observations - 1));
  return standard_error * boost::math::quantile(boost::math::complement(distribution, 0.025));
}

Verdict judge(double difference, double interval, bool lower_is_better, double bound) {
  const double better_by = lower_is_better ? bound - difference : difference - bound;
  if (std::abs(better_by) <= interval) return Verdict::too_small;
  return better_by > 0 ? Verdict::holds : Verdict::fails;
}

Result compare(std::span<const double> baseline, std::span<const double> method, const Claim& claim) {
  FRUGAL_ASSERT(!baseline.empty() && baseline.size() == method.size());
  std::vector<double> differences;
  for (size_t i = 0; i < baseline.size(); ++i) differences.push_back(method[i] - claim.factor * baseline[i]);
  const Mean of_baseline = mean_of(baseline), of_method = mean_of(method), of_difference = mean_of(differences);
  Result result;
  result.baseline = of_baseline.mean;
  result.method = of_method.mean;
  result.baseline_error = of_baseline.error;
  result.method_error = of_method.error;
  result.difference = of_difference.mean;
  result.standard_error = of_difference.error;
  result.observations = std::ssize(baseline);
  const bool diverged = !std::isfinite(of_method.mean), baseline_diverged = !std::isfinite(of_baseline.mean);
  if (diverged || baseline_diverged) {  // infinite where a training diverged, which nothing is worse than
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    result.difference = diverged && baseline_diverged ? 0 : diverged ? kInfinity : -kInfinity;
    result.standard_error = 0;
    result.verdict = diverged && baseline_diverged ? Verdict::too_small : diverged ? Verdict::fails : Verdict::holds;
    return result;
  }
  result.verdict = judge(result.difference, confidence(result.standard_error, result.observations), claim.lower_is_better, claim.bound);
  return result;
}

}  // namespace frugal::claims
