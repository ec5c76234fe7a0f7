#include "train/trainer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/process.h"
#include "base/progress.h"
#include "base/rng.h"
#include "train/checkpoint.h"
#include "train/clip.h"

namespace frugal::train {
namespace {

constexpr int kNonFiniteInARow = 3;
constexpr const char* kHookState = "hook.";  // leads the names of a hook's state in a checkpoint
constexpr double kMeanDecay = 0.9;           // of the running mean of the loss

struct Step {
  std::vector<const MicroBatch*> batches;
  int64_t epoch = 0;
};

// Where each step's micro-batches are: the epochs one after the other, the last step of each perhaps with fewer. Packing may give an epoch
// a few more or fewer than another.
class Plan {
 public:
  Plan(Objective& objective, const TrainerOptions& options) : objective_(objective), accumulation_(options.gradient_accumulation_steps) {
    load(0);
    if (micro_.empty()) fail(ErrorKind::invalid_input, "there is nothing to train on");
    total_ = options.max_steps;
    if (total_ > 0) return;
    const auto whole = static_cast<int64_t>(options.num_epochs);
    const double rest = options.num_epochs - static_cast<double>(whole);
    total_ = first_of(whole);
    if (rest > 1e-9) total_ += static_cast<int64_t>(std::ceil(rest * static_cast<double>(first_of(whole + 1) - first_of(whole)) - 1e-9));
  }
  int64_t total() const { return total_; }
  double epoch_after(int64_t step) {
    const int64_t epoch = epoch_of(step), begin = first_of(epoch);
    return static_cast<double>(epoch) + static_cast<double>(step - begin) / static_cast<double>(first_of(epoch + 1) - begin);
  }
  // Valid until the next call.
  Step step(int64_t index) {
    Step step{{}, epoch_of(index)};
    load(step.epoch);
    const int64_t begin = (index - first_of(step.epoch)) * accumulation_;
    for (int64_t i = begin; i < std::min(begin + accumulation_, std::ssize(micro_)); ++i) step.batches.push_back(&micro_[static_cast<size_t>(i)]);
    return step;
  }

 private:
  // The step that an epoch begins with.
  int64_t first_of(int64_t epoch) {
    while (std::ssize(firsts_) <= epoch) load(std::ssize(firsts_) - 1);
    return firsts_[static_cast<size_t>(epoch)];
  }
  int64_t epoch_of(int64_t step) {
    int64_t epoch = 0;
    while (first_of(epoch + 1) <= step) ++epoch;
    return epoch;
  }
  void load(int64_t epoch) {
    if (epoch != epoch_) micro_ = objective_.epoch(epoch);
    epoch_ = epoch;
    if (std::ssize(firsts_) == epoch + 1) firsts_.push_back(firsts_.back() + std::max<int64_t>(1, (std::ssize(micro_) + accumulation_ - 1) / accumulation_));
  }
  Objective& objective_;
  int64_t accumulation_, total_ = 0, epoch_ = -1;
  std::vector<MicroBatch> micro_;
  std::vector<int64_t> firsts_ = {0};
};

// Parameters are where others see them, as long as it lives.
class AtEvaluationPoint {
 public:
  explicit AtEvaluationPoint(Optimizer& optimizer) : optimizer_(optimizer) { optimizer_.to_evaluation_point(); }
  ~AtEvaluationPoint() { optimizer_.to_training_point(); }
  AtEvaluationPoint(const AtEvaluationPoint&) = delete;
  AtEvaluationPoint& operator=(const AtEvaluationPoint&) = delete;

 private:
  Optimizer& optimizer_;
};

class Run {
 public:
  Run(Objective& objective, const std::vector<Parameter>& parameters, Optimizer& optimizer, const RunFolder& folder, const TrainerOptions& options,
      Json fingerprint, const CheckpointFiles& files)
      : objective_(objective),
        parameters_(parameters),
        optimizer_(optimizer),
        folder_(folder),
        options_(options),
        files_(files),
        plan_(objective, options),
        fingerprint_(std::move(fingerprint)) {
    fingerprint_["objective"] = objective.fingerprint();
    fingerprint_["seed"] = options.seed;
    fingerprint_["gradient_accumulation_steps"] = options.gradient_accumulation_steps;
    fingerprint_["total_steps"] = plan_.total();
    fingerprint_["learning_rate"] = options.learning_rate;
    fingerprint_["max_grad_norm"] = options.max_grad_norm;
    if (options.hook) options.hook->begin(plan_.total());
    if (options.spikes == SpikePolicy::skip) fingerprint_["spike_factor"] = options.spike_factor;
  }

  TrainResult run() {
    if (folder_.resumes()) resume();
    result_.first_step = step_;
    result_.total_steps = plan_.total();
    log_.emplace(folder_.path(), step_);
    Progress progress("train", plan_.total());
    try {
      progress.step(step_);
      if (pending_) {
        finish_step();
        is_saved_ = false;
      }
      while (step_ < plan_.total()) {
        pending_ = one_step();
        ++step_;
        is_saved_ = false;
        finish_step();
        progress.step(1, fmt::format("loss {:.4f}", result_.loss_last));
        if (step_ < plan_.total() && options_.save_steps > 0 && (step_ % options_.save_steps == 0 || save_is_due_)) save(false);
        stop_point();
      }
    } catch (const Interrupted&) {
      result_.stopped = true;
    }
    if (!is_saved_) save(true);
    optimizer_.to_evaluation_point();
    result_.steps = step_;
    result_.tokens = tokens_;
    result_.skipped = skipped_;
    result_.seconds = watch_.seconds();
    return result_;
  }

 private:
  LogRow one_step() {
    const Step step = plan_.step(step_);
    const Stopwatch watch;
    int64_t targets = 0, tokens = 0;
    double flops = 0;
    for (const MicroBatch* batch : step.batches) {
      targets += batch->targets;
      tokens += batch->tokens;
      flops += batch->flops;
    }
    Rng seeds(options_.seed * 0x9E3779B97F4A7C15 + static_cast<uint64_t>(step_) + 1);
    const uint64_t hessian_seed = seeds.next();
    if (step_ > 0 && hessian_step_ != step_ && optimizer_.wants_hessian(step_ - 1)) update_hessian(step, targets, hessian_seed);
    clear_gradients();
    const double scale = 1.0 / static_cast<double>(std::max<int64_t>(1, targets));
    double loss = 0;
    for (const MicroBatch* batch : step.batches) loss += objective_.accumulate(*batch, scale, seeds.next());
    loss *= scale;
    const at::NoGradGuard no_grad;
    const Json hook_metrics = options_.hook ? options_.hook->add_gradients() : Json::object();
    LogRow row;
    row.loss = loss;
    row.learning_rate = options_.learning_rate * schedule_factor(options_.schedule, step_, plan_.total());
    row.grad_norm = options_.max_grad_norm > 0 ? clip_gradients(parameters_, options_.max_grad_norm) : gradient_norm(parameters_);
    row.metrics = objective_.metrics();
    row.metrics.update(hook_metrics);
    row.skipped = !std::isfinite(loss) || !std::isfinite(row.grad_norm) || is_spike(loss, step);
    if (!row.skipped) {
      optimizer_.step(row.learning_rate);
      if (options_.hook) options_.hook->after_step(step_);
      mean_loss_ = mean_loss_ > 0 ? kMeanDecay * mean_loss_ + (1 - kMeanDecay) * loss : loss;
      non_finite_ = 0;
    } else {
      ++skipped_;
      if (!std::isfinite(loss) || !std::isfinite(row.grad_norm)) refuse_non_finite(row, step);
    }
    clear_gradients();
    tokens_ += tokens;
    row.tokens = tokens_;
    const double seconds = std::max(1e-9, watch.seconds());
    row.tokens_per_second = static_cast<double>(tokens) / seconds;
    if (flops > 0 && options_.peak_flops > 0) row.mfu = flops / (seconds * options_.peak_flops);
    return row;
  }

  // Gauss-Newton-Bartlett (Sophia, arXiv 2305.14342, algorithm 2), between two steps: the gradient for labels that the model itself draws.
  void update_hessian(const Step& step, int64_t targets, uint64_t seed) {
    clear_gradients();
    Rng seeds(seed);
    for (const MicroBatch* batch : step.batches) objective_.accumulate_drawn(*batch, 1.0 / static_cast<double>(std::max<int64_t>(1, targets)), seeds.next());
    optimizer_.update_hessian(static_cast<double>(targets));
    hessian_step_ = step_;
    is_saved_ = false;
  }

  void clear_gradients() const {
    for (const Parameter& parameter : parameters_) parameter.tensor.mutable_grad() = at::Tensor();
  }

  static std::string examples_of(const Step& step) {
    std::vector<uint64_t> examples;
    for (const MicroBatch* batch : step.batches) examples.insert(examples.end(), batch->examples.begin(), batch->examples.end());
    const bool cut = examples.size() > 16;
    if (cut) examples.resize(16);
    return fmt::format("{}{}", fmt::join(examples, ", "), cut ? ", ..." : "");
  }

  bool is_spike(double loss, const Step& step) {
    if (options_.spike_factor <= 0 || mean_loss_ <= 0 || !(loss > options_.spike_factor * mean_loss_)) return false;
    const bool skip = options_.spikes == SpikePolicy::skip;
    log_warning("step {}: the loss is {:.4g}, its running mean {:.4g}; {} (examples {})", step_ + 1, loss, mean_loss_, skip ? "the step is skipped" : "a spike",
                examples_of(step));
    if (skip) mean_loss_ = kMeanDecay * mean_loss_ + (1 - kMeanDecay) * std::min(loss, options_.spike_factor * mean_loss_);  // a loss that stays is learned
    return skip;
  }

  void refuse_non_finite(const LogRow& row, const Step& step) {
    log_warning("step {}: loss {}, gradient norm {}: the step is skipped, nothing has changed (examples {})", step_ + 1, row.loss, row.grad_norm,
                examples_of(step));
    if (++non_finite_ < kNonFiniteInARow) return;
    if (!is_saved_) save(true);
    fail(ErrorKind::invalid_input,
         "{} steps in a row had a loss or gradient that is not finite, up to step {}: the run ends, with a checkpoint of step {}; a lower learning rate or "
         "other data may help",
         kNonFiniteInARow, step_ + 1, step_);
  }

  // Evaluates if it is time and writes the row of the step that was done. What a stop leaves of it is done when the run goes on.
  void finish_step() {
    LogRow row = *pending_;
    row.step = step_;
    row.total_steps = plan_.total();
    row.epoch = plan_.epoch_after(step_);
    const bool last = step_ == plan_.total();
    if (last || (options_.eval_steps > 0 && step_ % options_.eval_steps == 0)) {
      const AtEvaluationPoint there(optimizer_);
      if (const auto loss = objective_.evaluate()) {
        row.has_eval = result_.has_eval = true;
        row.eval_loss = result_.eval_loss = *loss;
      }
    }
    pending_.reset();
    if (step_ == 1) result_.loss_first = row.loss;
    if (!row.skipped) result_.loss_last = row.loss;
    if (step_ % options_.logging_steps != 0 && step_ != 1 && !last && !row.has_eval && !row.skipped) return;
    row.elapsed_seconds = watch_.seconds();
    const auto done = static_cast<double>(std::max<int64_t>(1, step_ - result_.first_step));
    row.remaining_seconds = row.elapsed_seconds / done * static_cast<double>(plan_.total() - step_);
    row.peak_rss_bytes = peak_rss_bytes();
    history_.push_back(row.history());
    try {
      log_->write(row);
    } catch (const Error& error) {
      log_warning("the log is not complete: {}", error.what());
    }
  }

  // What one_step found out, of a step whose row is not written.
  static Json numbers_of(const LogRow& row) {
    return {{"loss", row.loss},
            {"grad_norm", row.grad_norm},
            {"learning_rate", row.learning_rate},
            {"tokens_per_second", row.tokens_per_second},
            {"tokens", row.tokens},
            {"mfu", row.mfu ? Json(*row.mfu) : Json()},
            {"skipped", row.skipped},
            {"metrics", row.metrics}};
  }
  static LogRow row_of(const JsonObject& numbers) {
    LogRow row;
    const auto number = [&](const char* name) { return numbers.has(name) ? numbers.number(name, -1e300, 1e300) : std::numeric_limits<double>::quiet_NaN(); };
    row.loss = number("loss");
    row.grad_norm = number("grad_norm");
    row.learning_rate = number("learning_rate");
    row.tokens_per_second = number("tokens_per_second");
    row.tokens = numbers.integer("tokens", 0, INT64_MAX);
    if (numbers.has("mfu")) row.mfu = number("mfu");
    row.skipped = numbers.boolean_or("skipped", false);
    row.metrics = numbers.object("metrics").json();
    return row;
  }

  // At the `end` of the run it is an error when it cannot be written.
  void save(bool end) {
    Checkpoint checkpoint{step_, {}, {}, {}};
    for (const Parameter& parameter : parameters_) checkpoint.parameters[parameter.name] = parameter.tensor;
    optimizer_.for_each_state([&](const std::string& name, at::Tensor& state) { checkpoint.optimizer[name] = state; });
    if (options_.hook) {
      options_.hook->for_each_state([&](const std::string& name, at::Tensor& state) { checkpoint.optimizer[kHookState + name] = state; });
    }
    checkpoint.state = {{"global_step", step_},
                        {"max_steps", plan_.total()},
                        {"epoch", plan_.epoch_after(step_)},
                        {"num_input_tokens_seen", tokens_},
                        {"skipped_steps", skipped_},
                        {"not_finite_in_a_row", non_finite_},
                        {"hessian_step", hessian_step_},
                        {"mean_loss", mean_loss_},
                        {"loss_first", result_.loss_first},
                        {"loss_last", result_.loss_last},
                        {"fingerprint", fingerprint_},
                        {"unfinished_step", pending_ ? numbers_of(*pending_) : Json()},
                        {"log_history", history_}};
    try {
      write_checkpoint(folder_.path(), checkpoint, add_files());
    } catch (const Error& error) {
      if (end || error.kind() == ErrorKind::internal) throw;
      log_warning("no checkpoint at step {}, it is tried again after the next: {}", step_, error.what());
      save_is_due_ = true;
      return;
    }
    save_is_due_ = false;
    is_saved_ = true;
    prune_checkpoints(folder_.path(), options_.save_total_limit);
  }

  // Other tools get the point that is evaluated.
  CheckpointFiles add_files() const {
    if (!files_) return {};
    return [this](const std::string& folder) {
      const AtEvaluationPoint there(optimizer_);
      files_(folder);
    };
  }

  void resume() {
    const auto checkpoint = newest_checkpoint(folder_.path());
    if (!checkpoint) return;
    const std::string where = fmt::format("{}/checkpoint-{}", folder_.path(), checkpoint->step);
    require_equal(checkpoint->state.value("fingerprint", Json::object()), where);
    if (checkpoint->parameters.size() != parameters_.size())
      fail(ErrorKind::invalid_input, "{}: is of another run: {} parameters, here are {}", where, checkpoint->parameters.size(), parameters_.size());
    for (const Parameter& parameter : parameters_) {
      at::Tensor tensor = parameter.tensor;
      copy_named(checkpoint->parameters, parameter.name, tensor, where);
    }
    TensorMap states = checkpoint->optimizer;
    if (options_.hook) {
      options_.hook->for_each_state([&](const std::string& name, at::Tensor& state) {
        copy_named(states, kHookState + name, state, where);
        states.erase(kHookState + name);
      });
    }
    load_state(optimizer_, states, where);
    const JsonObject state(checkpoint->state, where + "/trainer_state.json");
    step_ = checkpoint->step;
    if (step_ > plan_.total()) state.fail_at("global_step", fmt::format("is beyond the run's {} steps", plan_.total()));
    tokens_ = state.integer("num_input_tokens_seen", 0, INT64_MAX);
    skipped_ = state.integer("skipped_steps", 0, INT64_MAX);
    non_finite_ = static_cast<int>(state.integer("not_finite_in_a_row", 0, kNonFiniteInARow));
    hessian_step_ = state.integer("hessian_step", -1, INT64_MAX);
    mean_loss_ = state.number("mean_loss", 0, 1e300);
    result_.loss_first = state.number("loss_first", -1e300, 1e300);
    result_.loss_last = state.number("loss_last", -1e300, 1e300);
    if (state.has("unfinished_step")) pending_ = row_of(state.object("unfinished_step"));
    history_ = checkpoint->state.value("log_history", Json::array());
    is_saved_ = true;
    log_info("resumed at step {} of {}", step_, plan_.total());
  }

  void require_equal(const Json& stored, const std::string& where) const {
    const Json before = stored.flatten(), now = fingerprint_.flatten();
    for (const auto& [key, value] : now.items()) {
      const Json other = before.value(key, Json());
      if (other != value) differs(where, key.substr(1), other, value);
    }
  }
  void differs(const std::string& where, const std::string& key, const Json& stored, const Json& here) const {
    const std::string what = fmt::format("{}: {} was {}, is {} now", where, key, stored.dump(), here.dump());
    // What was drawn from the seed and does not train is not in the checkpoint.
    if (!options_.allow_changes || key == "seed")
      fail(ErrorKind::invalid_input, "{}: the run would not go on as it began{}", what, key == "seed" ? "" : "; --allow-changes lets it");
    log_warning("{}: the run does not go on as it began", what);
  }

  Objective& objective_;
  const std::vector<Parameter>& parameters_;
  Optimizer& optimizer_;
  const RunFolder& folder_;
  const TrainerOptions& options_;
  const CheckpointFiles& files_;
  Plan plan_;
  Json fingerprint_;
  Json history_ = Json::array();
  TrainResult result_;
  Stopwatch watch_;
  std::optional<RunLog> log_;
  std::optional<LogRow> pending_;  // of a step that is done, until its row is written
  int64_t step_ = 0, tokens_ = 0, skipped_ = 0, hessian_step_ = -1;
  int non_finite_ = 0;
  double mean_loss_ = 0;
  bool save_is_due_ = false, is_saved_ = true;  // saved: there is nothing that the newest checkpoint does not hold
};

}  // namespace

TrainResult train(Objective& objective, const std::vector<Parameter>& parameters, Optimizer& optimizer, const RunFolder& folder, const TrainerOptions& options,
                  const Json& fingerprint, const CheckpointFiles& files) {
  FRUGAL_ASSERT(options.gradient_accumulation_steps > 0 && options.logging_steps > 0);
  return Run(objective, parameters, optimizer, folder, options, fingerprint, files).run();
}

}  // namespace frugal::train
