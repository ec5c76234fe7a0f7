// What a claim comes to: two numbers, their difference, and whether it is more than chance.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/method_table.h"

namespace frugal::claims {

// holds: better than what the claim allows by more than the 95 % confidence interval of the difference. too_small: within it. fails: worse by more.
enum class Verdict { holds, fails, too_small };
std::string to_string(Verdict verdict);  // "holds", "fails", "too_small"
std::string describe(Verdict verdict);   // "holds", "does not hold here", "too small to tell"

struct Result {
  double baseline = 0, method = 0;              // means of the metric
  double baseline_error = 0, method_error = 0;  // their standard errors
  double difference = 0;                        // method - factor * baseline
  double standard_error = 0;                    // of the difference, paired
  int64_t observations = 0;                     // pairs: chunks of text, or seeds; 1: nothing in it is drawn, the errors are 0
  double baseline_rate = 0, method_rate = 0;    // learning rates, where some were to be chosen from
  Verdict verdict = Verdict::too_small;
  double seconds = 0;
};

// Half of the 95 % confidence interval of a mean (Student's t); 0 for one observation.
double confidence(double standard_error, int64_t observations);

// interval: half of its width.
Verdict judge(double difference, double interval, bool lower_is_better, double bound);

// Pairwise: value i of both is of the same chunk, or seed; infinite where its training diverged, which is worse than any, whatever the metric.
Result compare(std::span<const double> baseline, std::span<const double> method, const Claim& claim);

}  // namespace frugal::claims
