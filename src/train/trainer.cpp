#include "train/trainer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

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
constexpr double kMeanDecay = 0.9;  // of the running mean of the loss

// Only one process trains into a folder; the lock goes with the process, however it ends.
class FolderLock {
 public:
  explicit FolderLock(const std::string& output) {
    std::error_code code;
    std::filesystem::create_directories(output, code);
    if (code) fail(ErrorKind::io, "{}: cannot be created: {}", output, code.message());
    const std::string path = output + "/.lock";
    fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd_ < 0) fail(ErrorKind::io, "{}: cannot be opened: {}", path, std::generic_category().message(errno));
    if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      ::close(fd_);
      fail(ErrorKind::invalid_input, "{}: another process trains into this folder", output);
    }
  }
  ~FolderLock() { ::close(fd_); }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_;
};

struct Step {
  std::vector<const MicroBatch*> batches;
  int64_t epoch = 0;
};

// Where each step's micro-batches are: the epochs one after the other, the last step of each perhaps with fewer.
class Plan {
 public:
  Plan(Objective& objective, const TrainerOptions& options) : objective_(objective), accumulation_(options.gradient_accumulation_steps) {
    load(0);
    if (micro_.empty()) fail(ErrorKind::invalid_input, "there is nothing to train on");
    steps_per_epoch_ = (std::ssize(micro_) + accumulation_ - 1) / accumulation_;
    total_ = options.max_steps > 0 ? options.max_steps
                                   : std::max<int64_t>(1, static_cast<int64_t>(std::ceil(options.num_epochs * static_cast<double>(steps_per_epoch_) - 1e-9)));
  }
  int64_t total() const { return total_; }
  double epoch_after(int64_t step) const { return static_cast<double>(step) / static_cast<double>(steps_per_epoch_); }
  // Valid until the next call.
  Step step(int64_t index) {
    Step step{{}, index / steps_per_epoch_};
    load(step.epoch);
    const int64_t begin = index % steps_per_epoch_ * accumulation_;
    for (int64_t i = begin; i < std::min(begin + accumulation_, std::ssize(micro_)); ++i) step.batches.push_back(&micro_[static_cast<size_t>(i)]);
    return step;
  }

 private:
  // Packing may give another epoch a few micro-batches more or fewer than the first: the last step takes what is there.
  void load(int64_t epoch) {
    if (epoch == epoch_) return;
    micro_ = objective_.epoch(epoch);
    epoch_ = epoch;
  }
  Objective& objective_;
  int64_t accumulation_, steps_per_epoch_ = 1, total_ = 0, epoch_ = -1;
  std::vector<MicroBatch> micro_;
};

class Run {
 public:
  Run(Objective& objective, const std::vector<Parameter>& parameters, Optimizer& optimizer, const TrainerOptions& options, Json fingerprint,
      const CheckpointFiles& files)
      : objective_(objective),
        parameters_(parameters),
        optimizer_(optimizer),
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
  }

  TrainResult run() {
    if (options_.resume) resume();
    result_.first_step = step_;
    result_.total_steps = plan_.total();
    RunLog log(options_.output, step_);
    Progress progress("train", plan_.total());
    progress.step(step_);
    bool unsaved = false;
    try {
      while (step_ < plan_.total()) {
        const LogRow row = one_step();
        unsaved = true;
        ++step_;
        finish_row(row, log);
        progress.step(1, fmt::format("loss {:.4f}", row.loss));
        if (step_ < plan_.total() && options_.save_steps > 0 && (step_ % options_.save_steps == 0 || save_is_due_) && save(false)) unsaved = false;
        stop_point();
      }
    } catch (const Interrupted&) {
      result_.stopped = true;
      clear_stop();  // a second signal leaves at once
    }
    if (unsaved || step_ == plan_.total()) save(true);
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
    for (const MicroBatch* batch : step.batches) {
      targets += batch->targets;
      tokens += batch->tokens;
    }
    clear_gradients();
    const double scale = 1.0 / static_cast<double>(std::max<int64_t>(1, targets));
    double loss = 0;
    Rng seeds(options_.seed * 0x9E3779B97F4A7C15 + static_cast<uint64_t>(step_) + 1);
    for (const MicroBatch* batch : step.batches) loss += objective_.accumulate(*batch, scale, seeds.next());
    loss *= scale;
    const at::NoGradGuard no_grad;
    LogRow row;
    row.loss = loss;
    row.learning_rate = options_.learning_rate * schedule_factor(options_.schedule, step_, plan_.total());
    row.grad_norm = clip_gradients(parameters_, options_.max_grad_norm);
    row.metrics = objective_.metrics();
    row.skipped = !std::isfinite(loss) || !std::isfinite(row.grad_norm) || is_spike(loss, step);
    if (!row.skipped) {
      optimizer_.step(row.learning_rate);
      if (optimizer_.wants_hessian(step_)) update_hessian(step, seeds.next());
      mean_loss_ = mean_loss_ > 0 ? kMeanDecay * mean_loss_ + (1 - kMeanDecay) * loss : loss;
      non_finite_ = 0;
    } else {
      ++skipped_;
      if (!std::isfinite(loss) || !std::isfinite(row.grad_norm)) refuse_non_finite(row, step);
    }
    clear_gradients();
    tokens_ += tokens;
    row.tokens = tokens_;
    row.tokens_per_second = static_cast<double>(tokens) / std::max(1e-9, watch.seconds());
    return row;
  }

  // Gauss-Newton-Bartlett (Sophia, arXiv 2305.14342, algorithm 2): the gradient for labels that the model itself draws.
  void update_hessian(const Step& step, uint64_t seed) {
    int64_t targets = 0;
    for (const MicroBatch* batch : step.batches) targets += batch->targets;
    clear_gradients();
    {
      const at::AutoGradMode grad(true);
      Rng seeds(seed);
      for (const MicroBatch* batch : step.batches) objective_.accumulate_drawn(*batch, 1.0 / static_cast<double>(std::max<int64_t>(1, targets)), seeds.next());
    }
    optimizer_.update_hessian(static_cast<double>(targets));
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
    return skip;
  }

  void refuse_non_finite(const LogRow& row, const Step& step) {
    log_warning("step {}: loss {}, gradient norm {}: the step is skipped, nothing has changed (examples {})", step_ + 1, row.loss, row.grad_norm,
                examples_of(step));
    if (++non_finite_ < kNonFiniteInARow) return;
    fail(ErrorKind::invalid_input,
         "{} steps in a row had a loss or gradient that is not finite, up to step {}: the run ends, its last checkpoint is kept; a lower learning rate or "
         "other data may help",
         kNonFiniteInARow, step_ + 1);
  }

  void finish_row(LogRow row, RunLog& log) {
    row.step = step_;
    row.total_steps = plan_.total();
    row.epoch = plan_.epoch_after(step_);
    if (step_ == 1) loss_first_ = row.loss;
    if (!row.skipped) result_.loss_last = row.loss;
    result_.loss_first = loss_first_;
    const bool last = step_ == plan_.total();
    if (last || (options_.eval_steps > 0 && step_ % options_.eval_steps == 0)) {
      optimizer_.to_evaluation_point();
      const auto loss = objective_.evaluate();
      optimizer_.to_training_point();
      if (loss) {
        row.has_eval = result_.has_eval = true;
        row.eval_loss = result_.eval_loss = *loss;
      }
    }
    if (step_ % options_.logging_steps != 0 && step_ != 1 && !last && !row.has_eval && !row.skipped) return;
    row.elapsed_seconds = watch_.seconds();
    const auto done = static_cast<double>(step_ - result_.first_step);
    row.remaining_seconds = row.elapsed_seconds / done * static_cast<double>(plan_.total() - step_);
    row.peak_rss_bytes = peak_rss_bytes();
    history_.push_back(row.history());
    try {
      log.write(row);
    } catch (const Error& error) {
      log_warning("the log is not complete: {}", error.what());
    }
  }

  // Whether it is written; at the `end` of the run not to be able to is an error.
  bool save(bool end) {
    Checkpoint checkpoint{step_, {}, {}, {}};
    for (const Parameter& parameter : parameters_) checkpoint.parameters[parameter.name] = parameter.tensor;
    optimizer_.for_each_state([&](const std::string& name, at::Tensor& state) { checkpoint.optimizer[name] = state; });
    checkpoint.state = {{"global_step", step_},        {"max_steps", plan_.total()}, {"epoch", plan_.epoch_after(step_)}, {"num_input_tokens_seen", tokens_},
                        {"skipped_steps", skipped_},   {"mean_loss", mean_loss_},    {"loss_first", loss_first_},         {"loss_last", result_.loss_last},
                        {"fingerprint", fingerprint_}, {"log_history", history_}};
    try {
      write_checkpoint(options_.output, checkpoint, add_files());
    } catch (const Error& error) {
      if (end || error.kind() == ErrorKind::internal) throw;
      log_warning("no checkpoint at step {}, it is tried again after the next: {}", step_, error.what());
      save_is_due_ = true;
      return false;
    }
    save_is_due_ = false;
    prune_checkpoints(options_.output, options_.save_total_limit);
    return true;
  }

  // Other tools get the point that is evaluated.
  CheckpointFiles add_files() const {
    if (!files_) return {};
    return [this](const std::string& folder) {
      optimizer_.to_evaluation_point();
      files_(folder);
      optimizer_.to_training_point();
    };
  }

  void resume() {
    const auto checkpoint = newest_checkpoint(options_.output);
    if (!checkpoint) return;
    const std::string where = fmt::format("{}/checkpoint-{}", options_.output, checkpoint->step);
    require_equal(checkpoint->state.value("fingerprint", Json::object()), where);
    const auto load = [&](const TensorMap& from, const std::string& name, at::Tensor& to) {
      const auto found = from.find(name);
      if (found == from.end()) fail(ErrorKind::invalid_input, "{}: is of another run: it has no {}", where, name);
      if (found->second.sizes() != to.sizes() || found->second.scalar_type() != to.scalar_type()) {
        fail(ErrorKind::invalid_input, "{}: is of another run: {} has another shape or type", where, name);
      }
      const at::NoGradGuard no_grad;
      to.copy_(found->second);
    };
    size_t states = 0;
    optimizer_.for_each_state([&](const std::string&, at::Tensor&) { ++states; });
    if (checkpoint->parameters.size() != parameters_.size() || checkpoint->optimizer.size() != states) {
      fail(ErrorKind::invalid_input, "{}: is of another run: {} parameters and {} optimizer states, here are {} and {}", where, checkpoint->parameters.size(),
           checkpoint->optimizer.size(), parameters_.size(), states);
    }
    for (const Parameter& parameter : parameters_) {
      at::Tensor tensor = parameter.tensor;
      load(checkpoint->parameters, parameter.name, tensor);
    }
    optimizer_.for_each_state([&](const std::string& name, at::Tensor& state) { load(checkpoint->optimizer, name, state); });
    const JsonObject state(checkpoint->state, where + "/trainer_state.json");
    step_ = checkpoint->step;
    if (step_ > plan_.total()) state.fail_at("global_step", fmt::format("is beyond the run's {} steps", plan_.total()));
    tokens_ = state.integer("num_input_tokens_seen", 0, INT64_MAX);
    skipped_ = state.integer("skipped_steps", 0, INT64_MAX);
    mean_loss_ = state.number_or("mean_loss", 0, 0, 1e300);
    loss_first_ = result_.loss_first = state.number_or("loss_first", 0, -1e300, 1e300);
    result_.loss_last = state.number_or("loss_last", 0, -1e300, 1e300);
    history_ = checkpoint->state.value("log_history", Json::array());
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
    if (!options_.allow_changes) fail(ErrorKind::invalid_input, "{}: the run would not go on as it began; --allow-changes lets it", what);
    log_warning("{}: the run does not go on as it began", what);
  }

  Objective& objective_;
  const std::vector<Parameter>& parameters_;
  Optimizer& optimizer_;
  const TrainerOptions& options_;
  const CheckpointFiles& files_;
  Plan plan_;
  Json fingerprint_;
  Json history_ = Json::array();
  TrainResult result_;
  Stopwatch watch_;
  int64_t step_ = 0, tokens_ = 0, skipped_ = 0;
  int non_finite_ = 0;
  double mean_loss_ = 0, loss_first_ = 0;
  bool save_is_due_ = false;
};

}  // namespace

TrainResult train(Objective& objective, const std::vector<Parameter>& parameters, Optimizer& optimizer, const TrainerOptions& options, const Json& fingerprint,
                  const CheckpointFiles& files) {
  FRUGAL_ASSERT(options.gradient_accumulation_steps > 0 && options.logging_steps > 0);
  const FolderLock lock(options.output);
  return Run(objective, parameters, optimizer, options, fingerprint, files).run();
}

}  // namespace frugal::train
