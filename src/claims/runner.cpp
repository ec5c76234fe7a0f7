#include "claims/runner.h"

#include <ATen/ATen.h>

#include <cmath>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

namespace frugal::claims {

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

Verdict judge(double difference, double standard_error, bool lower_is_better, double bound) {
  const double better_by = lower_is_better ? bound - difference : difference - bound;
  if (std::abs(better_by) <= 2 * standard_error) return Verdict::too_small;
  return better_by > 0 ? Verdict::holds : Verdict::fails;
}

const std::vector<double>& Runner::losses(const std::vector<std::string>& chain, int chunks) {
  const auto key = std::pair(chain, chunks);
  if (const auto it = losses_.find(key); it != losses_.end()) return it->second;
  log_info("running {}", chain.empty() ? "the original" : fmt::format("{}", fmt::join(chain, " ")));
  nn::LoadedModel loaded = setting_.load();
  chain::Workbench bench(loaded, setting_.calibration, setting_.calibration_options, setting_.seed);
  chain::run_chain(bench, chain::parse_chain(steps_, chain));
  // Weights expanded: the claims are about methods, not about our kernels' 8-bit activations.
  loaded.model->set_execution(nn::Execution::expanded);
  std::vector<double> means;
  eval::evaluate_perplexity(*loaded.model, setting_.evaluation, {512, chunks}, nullptr, [&](int64_t, const at::Tensor& log_p, const at::Tensor& targets) {
    means.push_back(-log_p.gather(1, targets.unsqueeze(1)).to(at::kDouble).mean().item<double>());
  });
  return losses_[key] = std::move(means);
}

Result Runner::run(const Claim& claim) {
  if (claim.metric != "ln_perplexity") fail(ErrorKind::unsupported, "claim metric \"{}\" is not known", claim.metric);
  const Stopwatch watch;
  const std::vector<double> baseline = losses(claim.baseline, claim.chunks), method = losses(claim.method, claim.chunks);
  Result result;
  const auto count = static_cast<double>(baseline.size());
  double squares = 0;
  for (size_t i = 0; i < baseline.size(); ++i) {
    result.baseline += baseline[i] / count;
    result.method += method[i] / count;
  }
  result.difference = result.method - result.baseline;
  for (size_t i = 0; i < baseline.size(); ++i) squares += std::pow(method[i] - baseline[i] - result.difference, 2);
  result.standard_error = count > 1 ? std::sqrt(squares / (count - 1) / count) : 0;
  result.verdict = judge(result.difference, result.standard_error, claim.lower_is_better, claim.bound);
  result.seconds = watch.seconds();
  return result;
}

}  // namespace frugal::claims
