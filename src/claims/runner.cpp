#include "claims/runner.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "claims/activation_meter.h"
#include "train/continuation.h"
#include "train/fused_backward.h"
#include "train/hidden_states.h"

namespace frugal::claims {

const std::map<std::string, Runner::Measure>& Runner::measures() {
  static const std::map<std::string, Measure> all = {{"ln_perplexity", &Runner::ln_perplexity},
                                                     {"loss", &Runner::loss},
                                                     {"rouge_l", &Runner::rouge_l},
                                                     {"flops_to_loss", &Runner::flops_to_loss},
                                                     {"cpu_seconds", &Runner::cpu_seconds},
                                                     {"state_bytes", &Runner::state_bytes},
                                                     {"trainable_parameters", &Runner::trainable_parameters},
                                                     {"activation_bytes", &Runner::activation_bytes},
                                                     {"gradient_bytes", &Runner::gradient_bytes},
                                                     {"merge_difference", &Runner::merge_difference},
                                                     {"logits_difference", &Runner::logits_difference}};
  return all;
}

std::vector<std::string> metrics() {
  std::vector<std::string> names;
  for (const auto& [name, measure] : Runner::measures()) names.push_back(name);
  return names;
}

const std::vector<double>& Runner::losses(const std::string& model, const std::vector<std::string>& chain, int chunks) {
  const auto key = std::tuple(model, chain, chunks);
  if (const auto it = losses_.find(key); it != losses_.end()) return it->second;
  log_info("running {}", chain.empty() ? "the original" : fmt::format("{}", fmt::join(chain, " ")));
  nn::LoadedModel loaded = setting_.load(model);
  chain::Workbench bench(loaded, setting_.calibration(model), setting_.calibration_options, setting_.seed);
  chain::run_chain(bench, chain::parse_chain(steps_, chain));
  // Weights expanded: the claims are about methods, not about our kernels' 8-bit activations.
  loaded.model->set_execution(nn::Execution::expanded);
  std::vector<double> means;
  eval::evaluate_perplexity(*loaded.model, setting_.evaluation(model), {512, chunks}, nullptr,
                            [&](int64_t, const at::Tensor& log_p, const at::Tensor& targets) {
                              means.push_back(-log_p.gather(1, targets.unsqueeze(1)).to(at::kDouble).mean().item<double>());
                            });
  return losses_[key] = std::move(means);
}

Runner::Values Runner::ln_perplexity(const Claim& claim) {
  return {losses(claim.model, claim.baseline, claim.chunks), losses(claim.model, claim.method, claim.chunks)};
}

double Runner::best_rate(const Run& run, const std::vector<double>& rates) {
  if (rates.empty()) {
    if (!run.words.empty()) fail(ErrorKind::internal, "the claim gives {} no learning rate", fmt::join(run.words, " "));
    return 0;
  }
  if (rates.size() == 1) return rates.front();
  double best = rates.front(), least = std::numeric_limits<double>::infinity();
  for (const double rate : rates) {
    Run tried = run;
    tried.rate = rate;
    if (run.budget.tuned_width > 0) tried.budget.new_width = run.budget.tuned_width;
    if (const double loss = trainings_.of(tried).loss; loss < least) {
      least = loss;
      best = rate;
    }
  }
  return best;
}

Runner::Values Runner::by_seed(const Claim& claim, bool curve, const std::function<double(const Run&, const Trained&)>& of) {
  Values values;
  const auto fill = [&](const std::vector<std::string>& words, const std::vector<double>& rates, double& rate, std::vector<double>& side) {
    Run run{claim.model, words, claim.training, 0, 0, curve};
    if (!parse_side(words).distillation) run.budget.peers_teach = false;
    rate = run.rate = best_rate(run, rates);
    for (run.seed = 0; run.seed < claim.training.seeds; ++run.seed) side.push_back(of(run, trainings_.of(run)));
  };
  fill(claim.baseline, claim.training.baseline_rates, values.baseline_rate, values.baseline);
  fill(claim.method, claim.training.method_rates, values.method_rate, values.method);
  return values;
}

Runner::Values Runner::loss(const Claim& claim) {
  return by_seed(claim, false, [](const Run&, const Trained& trained) { return trained.loss; });
}

Runner::Values Runner::cpu_seconds(const Claim& claim) {
  return by_seed(claim, false, [](const Run&, const Trained& trained) { return trained.cpu_seconds; });
}

double rouge_l(std::span<const int32_t> written, std::span<const int32_t> reference) {
  if (written.empty() || reference.empty()) return 0;
  std::vector<int64_t> longest(reference.size() + 1, 0);  // of the part of `written` so far and the first tokens of `reference`
  for (const int32_t token : written) {
    int64_t corner = 0;
    for (size_t i = 0; i < reference.size(); ++i) {
      const int64_t above = longest[i + 1];
      longest[i + 1] = token == reference[i] ? corner + 1 : std::max(above, longest[i]);
      corner = above;
    }
  }
  return 2 * static_cast<double>(longest.back()) / static_cast<double>(written.size() + reference.size());
}

Runner::Values Runner::rouge_l(const Claim& claim) {
  return by_seed(claim, false, [&](const Run& run, const Trained& trained) {
    const data::Dataset& texts = trainings_.data(run).held_out;
    std::vector<std::span<const int32_t>> prompts;
    for (size_t i = 0; i < texts.size(); ++i) prompts.push_back(train::prompt_of(texts.example(i)));
    const train::ContinuationOptions sampling{run.budget.sequence_len / 2, run.budget.sequence_len, run.budget.temperature, trainings_.model(run.model).end_ids,
                                              trainings_.seed_of(run)};
    const auto written = train::continuations(*trained.model, prompts, sampling);
    double sum = 0;
    for (size_t i = 0; i < texts.size(); ++i) sum += claims::rouge_l(written[i], texts.example(i).tokens.subspan(prompts[i].size()));
    return sum / static_cast<double>(texts.size());
  });
}

Runner::Values Runner::flops_to_loss(const Claim& claim) {
  std::map<int, double> targets;  // by seed: what the baseline, which comes first, ends with
  return by_seed(claim, true, [&](const Run& run, const Trained& trained) {
    const double target = targets.try_emplace(run.seed, trained.loss).first->second;
    const auto reached = std::find_if(trained.curve.begin(), trained.curve.end(), [&](const Trained::Point& point) { return point.loss <= target; });
    return reached == trained.curve.end() ? trained.flops : reached->flops;
  });
}

Runner::Values Runner::by_side(const Claim& claim, const std::function<double(const Run&, const Side&)>& of) {
  const auto value = [&](const std::vector<std::string>& words) { return of({claim.model, words, claim.training}, parse_side(words)); };
  return {{value(claim.baseline)}, {value(claim.method)}};
}

Runner::Values Runner::state_bytes(const Claim& claim) {
  return by_side(claim, [&](const Run& run, const Side& side) {
    const Trainings::Start start = trainings_.start(run, side);
    return static_cast<double>(optimizer_of(side, start.parameters, 0)->state_bytes());
  });
}

Runner::Values Runner::trainable_parameters(const Claim& claim) {
  return by_side(claim, [&](const Run& run, const Side& side) {
    double count = 0;
    for (const train::Parameter& parameter : trainings_.start(run, side).parameters) count += static_cast<double>(parameter.tensor.numel());
    return count;
  });
}

Runner::Values Runner::activation_bytes(const Claim& claim) {
  return by_side(claim, [&](const Run& run, const Side& side) {
    const Trainings::Start start = trainings_.start(run, side);
    std::vector<uint64_t> examples;
    for (int64_t id = 0; id < run.budget.batch_size; ++id) examples.push_back(static_cast<uint64_t>(id));
    const nn::Batch batch = train::token_batch(trainings_.data(run).learned, examples).batch;
    train::hidden_states(*start.model, batch);  // what is made once, at the first use
    at::Tensor hidden;
    return static_cast<double>(bytes_kept_by([&] { hidden = train::hidden_states(*start.model, batch); }));
  });
}

namespace {

double bytes_of_gradients(const std::vector<train::Parameter>& parameters) {
  uint64_t bytes = 0;
  for (const train::Parameter& parameter : parameters) bytes += parameter.tensor.grad().defined() ? parameter.tensor.grad().nbytes() : 0;
  return static_cast<double>(bytes);
}

// Stands for an optimizer that steps in backward, and counts in place of stepping.
class GradientMeter : public train::Optimizer {
 public:
  explicit GradientMeter(const std::vector<train::Parameter>& parameters) : parameters_(parameters) {}
  void step(double) override {}
  void step_of(size_t, double) override { most = std::max(most, bytes_of_gradients(parameters_)); }
  void for_each_state(const std::function<void(const std::string&, at::Tensor&)>&) override {}
  double most = 0;

 private:
  const std::vector<train::Parameter>& parameters_;
};

}  // namespace

Runner::Values Runner::gradient_bytes(const Claim& claim) {
  return by_side(claim, [&](const Run& run, const Side& side) {
    const Trainings::Start start = trainings_.start(run, side);
    train::LanguageModelingOptions options;
    options.batches = {trainings_.seed_of(run), static_cast<size_t>(run.budget.batch_size), static_cast<size_t>(run.budget.sequence_len), false};
    train::LanguageModeling objective(*start.model, trainings_.data(run).learned, nullptr, options);
    const train::MicroBatch batch = objective.epoch(0).front();
    const auto learn = [&] { return objective.accumulate(batch, 1.0 / static_cast<double>(batch.targets), 0); };
    GradientMeter meter(start.parameters);
    const auto optimizer = optimizer_of(side, start.parameters, trainings_.seed_of(run));
    if (optimizer->steps_in_backward())
      train::FusedBackward(start.parameters, meter).step(learn, 0, 1);
    else
      learn();
    return std::max(meter.most, bytes_of_gradients(start.parameters));
  });
}

Runner::Values Runner::merge_difference(const Claim& claim) {
  const double rate = best_rate({claim.model, claim.method, claim.training}, claim.training.method_rates);
  const Trained trained = trainings_.train({claim.model, claim.method, claim.training, rate});
  if (!trained.adapter) fail(ErrorKind::invalid_input, "{}: is no adapter that could be merged", fmt::join(claim.method, " "));
  const nn::Model unmerged = *trained.model;
  trained.adapter->merge(at::kFloat);
  trained.model->set_execution(nn::Execution::expanded);
  return {{0}, {train::logits_difference(unmerged, *trained.model, setting_.training.seed)}, 0, rate};
}

Runner::Values Runner::logits_difference(const Claim& claim) {
  const Side side = parse_side(claim.method);
  if (!side.growth) fail(ErrorKind::invalid_input, "{}: grows no model", fmt::join(claim.method, " "));
  const nn::Model& model = *trainings_.model(claim.model).model;
  const train::Grown grown = side.growth->row->function(model, nullptr, side.growth->options, setting_.training.seed);
  return {{0}, {train::logits_difference(model, *grown.model, setting_.training.seed)}};
}

Result Runner::run(const Claim& claim) {
  const auto measure = measures().find(claim.metric);
  if (measure == measures().end()) fail(ErrorKind::unsupported, "claim metric \"{}\" is not known{}", claim.metric, did_you_mean(claim.metric, metrics()));
  const Stopwatch watch;
  const Values values = (this->*measure->second)(claim);
  Result result = compare(values.baseline, values.method, claim);
  result.baseline_rate = values.baseline_rate;
  result.method_rate = values.method_rate;
  result.seconds = watch.seconds();
  return result;
}

}  // namespace frugal::claims
