// The one runner of claims: baseline chain and method chain on the same model, calibration and tokens in one run, compared
// pairwise. A claim is data in a method's row (base/method_table.h).
#pragma once

#include <functional>
#include <map>
#include <string>

#include "chain/chain.h"
#include "eval/perplexity.h"

namespace frugal::claims {

// holds: better by more than twice the paired standard error. too_small: within it. fails: worse by more than that.
enum class Verdict { holds, fails, too_small };
std::string to_string(Verdict verdict);  // "holds", "fails", "too_small"
std::string describe(Verdict verdict);   // "holds", "does not hold here", "too small to tell"

struct Result {
  double baseline = 0, method = 0;  // the metric of each
  double difference = 0;            // method - baseline
  double standard_error = 0;        // of the difference, paired over chunks
  Verdict verdict = Verdict::too_small;
  double seconds = 0;
};

struct Setting {
  std::function<nn::LoadedModel()> load;  // the original, anew at each call
  eval::EvalText evaluation;
  chain::CalibrationText calibration;
  chain::CalibrationOptions calibration_options;
  uint64_t seed = 0;
};

class Runner {
 public:
  Runner(const chain::StepTable& steps, Setting setting) : steps_(steps), setting_(std::move(setting)) {}
  // Throws Error{unsupported} for a metric that the runner does not know ("ln_perplexity" is known).
  Result run(const Claim& claim);

 private:
  // Chunk means of the losses of a chain's result; each chain is run once however many claims use it.
  const std::vector<double>& losses(const std::vector<std::string>& chain, int chunks);
  const chain::StepTable& steps_;
  Setting setting_;
  std::map<std::pair<std::vector<std::string>, int>, std::vector<double>> losses_;
};

Verdict judge(double difference, double standard_error, bool lower_is_better, double bound);

}  // namespace frugal::claims
