#include "train/trainer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <optional>

#include "base/clock.h"
#include "base/defer_stop.h"
#include "base/error.h"
#include "base/log.h"
#include "base/process.h"
#include "base/progress.h"
#include "base/rng.h"
#include "train/checkpoint.h"
#include "train/clip.h"
#include "train/fused_backward.h"
#include "train/grad_scaler.h"
#include "train/step_plan.h"

namespace frugal::train {
namespace {

constexpr int kNonFiniteInARow = 3;
constexpr const char* kHookState = "hook.";  // leads the names of a hook's state in a checkpoint
constexpr double kMeanDecay = 0.9;           // of the running mean of the loss

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
  Run(Objective& objective, const std::vector<Parameter>& parameters, Optimizer& optimizer, const RunFolder* folder, const TrainerOptions& options,
      Json fingerprint, const CheckpointFiles& files, DataParallel* ranks)
      : objective_(objective),
        parameters_(parameters),
        optimizer_(optimizer),
        folder_(folder),
        options_(options),
        files_(files),
        ranks_(ranks),
        plan_(objective, options.gradient_accumulation_steps, options.max_steps, options.num_epochs),
        fingerprint_(std::move(fingerprint)) {
    fingerprint_["objective"] = objective.fingerprint();
    fingerprint_["seed"] = options.seed;
    fingerprint_["gradient_accumulation_steps"] = options.gradient_accumulation_steps;
    fingerprint_["total_steps"] = plan_.total();
    fingerprint_["learning_rate"] = options.learning_rate;
    fingerprint_["max_grad_norm"] = options.max_grad_norm;
    if (optimizer.steps_in_backward()) require_fused_backward(options, ranks != nullptr);
    if (options.scale_loss) scaler_.emplace();
    for (StepHook* hook : {options.hook, objective.step_hook()}) {
      if (hook) hooks_.push_back(hook);
    }
    for (StepHook* hook : hooks_) hook->begin(plan_.total());
    if (options.spikes == SpikePolicy::skip) fingerprint_["spike_factor"] = options.spike_factor;
  }

  TrainResult run() {
    if (folder_ && folder_->resumes()) resume();
    result_.first_step = step_;
    result_.total_steps = plan_.total();
    if (folder_ && leads()) log_.emplace(folder_->path(), step_);
    std::optional<DeferStop> deferred;
    if (ranks_) deferred.emplace();
    Progress progress("train", plan_.total());
    try {
      progress.step(step_);
      if (pending_) {
        finish_step();
        is_saved_ = false;
      }
      while (step_ < plan_.total()) {
        pending_ = ranks_ ? step_of_ranks() : one_step();
        ++step_;
        is_saved_ = false;
        finish_step();
        progress.step(1, fmt::format("loss {:.4f}", result_.loss_last));
        if (step_ < plan_.total() && options_.save_steps > 0 && (step_ % options_.save_steps == 0 || save_is_due_)) save(false);
        if (all_stop_) throw Interrupted{};
        stop_point();
      }
    } catch (const Interrupted&) {
      result_.stopped = true;
    }
    if (!is_saved_) save(true);
    if (ranks_) ranks_->come_to_leader();  // for what becomes of it
    if (!ranks_ || !ranks_->shards()) optimizer_.to_evaluation_point();
    result_.steps = step_;
    result_.tokens = tokens_;
    result_.skipped = skipped_;
    result_.seconds = watch_.seconds();
    return result_;
  }

 private:
  bool leads() const { return !ranks_ || ranks_->leads(); }
  int64_t rank_count() const { return ranks_ ? ranks_->world().size() : 1; }
  const std::vector<Parameter>& whole_parameters() const { return ranks_ ? ranks_->leaders_parameters() : parameters_; }  // at rank 0

  // When another rank has ended, what all have is worth keeping: the parameters are those of the last step.
  LogRow step_of_ranks() {
    try {
      return one_step();
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::io && ranks_->is_whole() && leads() && !is_saved_) {
        log_warning("another process has ended; a checkpoint of step {} is written", step_);
        write(own_state());
      }
      throw;
    }
  }

  // The micro-batches' gradients, each with a seed of its own; of several ranks each computes those of its turn. Returns the sum of losses and what
  // the ranks say of theirs.
  template <typename Accumulate>
  double accumulate(const Step& step, Rng& seeds, const Accumulate& accumulate_one) {
    double loss = 0;
    if (!ranks_) {
      for (const MicroBatch* batch : step.batches) loss += accumulate_one(*batch, seeds.next(), 1);
      return loss;
    }
    const size_t size = static_cast<size_t>(ranks_->group().size()), rank = static_cast<size_t>(ranks_->group().rank());
    for (size_t first = 0; first < step.batches.size(); first += size) {
      ranks_->begin_round(first + size >= step.batches.size());
      bool is_idle = true;
      for (size_t i = first; i < std::min(first + size, step.batches.size()); ++i) {
        const uint64_t seed = seeds.next();
        if (i != first + rank || step.batches[i]->targets == 0) continue;
        loss += accumulate_one(*step.batches[i], seed, 1);
        is_idle = false;
      }
      if (is_idle && ranks_->shards_parameters()) keep_pace(step, accumulate_one);
      ranks_->end_round();
    }
    ranks_->put_gradients();
    return loss;
  }

  // The micro-batches of this rank's copy of the model, which go through its stages together.
  double accumulate_staged(const Step& step, Rng& seeds, double scale) {
    const size_t size = static_cast<size_t>(ranks_->group().size()), rank = static_cast<size_t>(ranks_->group().rank());
    std::vector<const MicroBatch*> batches;
    std::vector<uint64_t> chosen;
    for (size_t i = 0; i < step.batches.size(); ++i) {
      const uint64_t seed = seeds.next();
      if (i % size != rank || step.batches[i]->targets == 0) continue;
      batches.push_back(step.batches[i]);
      chosen.push_back(seed);
    }
    ranks_->begin_round(true);
    const double loss = objective_.accumulate_step(batches, scale, chosen);
    ranks_->end_round();
    ranks_->put_gradients();
    return loss;
  }

  // A rank that has nothing to do in a round, where the others need its weights as they compute: it computes with them, for nothing.
  template <typename Accumulate>
  static void keep_pace(const Step& step, const Accumulate& accumulate_one) {
    for (const MicroBatch* batch : step.batches) {
      if (batch->targets == 0) continue;
      accumulate_one(*batch, 0, 0);
      return;
    }
  }

  // What the ranks know of a step: the sum of their losses; means of what the objective tells, each rank's by its micro-batches; whether all stop.
  void exchange(const Step& step, double& loss, Json& metrics) {
    if (!ranks_) return;
    const size_t size = static_cast<size_t>(ranks_->group().size()), rank = static_cast<size_t>(ranks_->group().rank());
    const size_t mine = step.batches.size() / size + (rank < step.batches.size() % size ? 1 : 0);
    const Json here = {{"loss", std::bit_cast<int64_t>(loss)}, {"metrics", metrics}, {"batches", mine}};  // JSON has no NaN
    loss = 0;
    std::map<std::string, std::pair<double, double>> sums;  // value and weight
    for (const std::string& text : ranks_->group().all_gather(here.dump())) {
      const Json said = parse_json(text, "what a rank says of its step");
      loss += std::bit_cast<double>(said.at("loss").get<int64_t>());
      const double weight = said.at("batches").get<double>();
      for (const auto& [name, value] : said.at("metrics").items()) {
        if (!value.is_number() || weight == 0) continue;
        sums[name].first += weight * value.get<double>();
        sums[name].second += weight;
      }
    }
    all_stop_ |= !ranks_->all_agree(!stop_requested());
    metrics = Json::object();
    for (const auto& [name, sum] : sums) metrics[name] = sum.first / sum.second;
  }

  // Whether the gradients of all ranks are finite.
  bool unscale() const {
    const bool finite = scaler_->unscale(parameters_);
    return ranks_ ? ranks_->all_agree(finite) : finite;
  }

  double clipped_norm() const {
    const double norm = ranks_ ? ranks_->gradient_norm() : gradient_norm(parameters_);
    if (options_.max_grad_norm > 0) clip_gradients(parameters_, norm, options_.max_grad_norm);
    return norm;
  }

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
    std::optional<DeferStop> whole;
    const bool by_losses = optimizer_.wants_losses(), fused = optimizer_.steps_in_backward();
    if (by_losses || fused) whole.emplace();  // the parameters are elsewhere for a while
    clear_gradients();
    const double scale = 1.0 / static_cast<double>(std::max<int64_t>(1, targets));
    double loss = 0;
    const double loss_scale = scaler_ ? scaler_->scale() : 1;
    LogRow row;
    row.learning_rate = options_.learning_rate * schedule_factor(options_.schedule, step_, plan_.total());
    if (by_losses) {
      const auto found = estimate_gradient(step, scale, seeds);
      loss = found.loss;
      row.grad_norm = found.norm;
      row.metrics = objective_.metrics();
    } else if (fused) {
      loss = step_in_backward(step, scale, seeds, row);
      row.metrics = objective_.metrics();
    } else {
      if (ranks_ && ranks_->is_staged())
        loss = accumulate_staged(step, seeds, scale * loss_scale);
      else
        loss = accumulate(step, seeds,
                          [&](const MicroBatch& batch, uint64_t seed, double share) { return objective_.accumulate(batch, share * scale * loss_scale, seed); });
      row.metrics = objective_.metrics();
      exchange(step, loss, row.metrics);
      loss *= scale;
    }
    const at::NoGradGuard no_grad;
    row.loss = loss;
    if (!fused) {
      if (scaler_) scaler_->update(unscale());
      for (StepHook* hook : hooks_) row.metrics.update(hook->add_gradients());
      if (!by_losses) row.grad_norm = clipped_norm();
      row.skipped = is_skipped(loss, row.grad_norm, step);
    }
    if (scaler_) row.metrics["loss_scale"] = loss_scale;
    if (!row.skipped) {
      if (!fused) optimizer_.step(row.learning_rate);
      if (ranks_) ranks_->share_parameters();
      for (StepHook* hook : hooks_) hook->after_step(step_);
      mean_loss_ = mean_loss_ > 0 ? kMeanDecay * mean_loss_ + (1 - kMeanDecay) * loss : loss;
      non_finite_ = 0;
    } else {
      ++skipped_;
      if (std::isfinite(loss) && !std::isfinite(row.grad_norm) && loss_scale > 1) {
        log_info("step {}: the gradient overflows where the loss is scaled by {}: the step is skipped, the scale halved", step_ + 1, loss_scale);
      } else if (!std::isfinite(loss) || !std::isfinite(row.grad_norm)) {
        refuse_non_finite(row, step);
      }
    }
    clear_gradients();
    tokens_ += tokens;
    row.tokens = tokens_;
    optimizer_.prepare_step(step_ + 1);
    const double seconds = std::max(1e-9, watch.seconds());
    row.tokens_per_second = static_cast<double>(tokens) / seconds;
    if (flops > 0 && options_.peak_flops > 0 && !by_losses) row.mfu = flops / (seconds * options_.peak_flops * static_cast<double>(rank_count()));
    return row;
  }

  bool is_skipped(double loss, double grad_norm, const Step& step) { return !std::isfinite(loss) || !std::isfinite(grad_norm) || is_spike(loss, step); }

  // Of an optimizer that moves each parameter as its gradient comes. Whether the step is taken, and the gradients' norm, are known before only where a pass of
  // its own finds out, which clipping needs.
  double step_in_backward(const Step& step, double scale, Rng& seeds, LogRow& row) {
    const MicroBatch& batch = *step.batches.front();
    const uint64_t seed = seeds.next();
    const double loss_scale = scaler_ ? scaler_->scale() : 1;
    FusedBackward fused(parameters_, optimizer_);
    double loss = 0;
    const auto backward = [&] { return loss = scale * objective_.accumulate(batch, scale * loss_scale, seed); };
    if (options_.max_grad_norm == 0) {
      row.grad_norm = fused.step(backward, row.learning_rate, 1);
      row.skipped = is_skipped(loss, row.grad_norm, step);
      return loss;
    }
    row.grad_norm = fused.norm_of(backward) / loss_scale;
    if (scaler_) scaler_->update(std::isfinite(row.grad_norm));
    row.skipped = is_skipped(loss, row.grad_norm, step);
    if (!row.skipped) fused.step(backward, row.learning_rate, std::min(1.0, options_.max_grad_norm / (row.grad_norm + 1e-6)) / loss_scale);
    return loss;
  }

  Optimizer::GradientEstimate estimate_gradient(const Step& step, double scale, Rng& seeds) {
    const uint64_t direction = seeds.next();
    return optimizer_.estimate_gradient(direction, [&] {
      Rng same = seeds;
      double loss = 0;
      for (const MicroBatch* batch : step.batches) loss += objective_.loss(*batch, same.next());
      return loss * scale;
    });
  }

  // Gauss-Newton-Bartlett (Sophia, arXiv 2305.14342, algorithm 2), between two steps: the gradient for labels that the model itself draws.
  void update_hessian(const Step& step, int64_t targets, uint64_t seed) {
    clear_gradients();
    Rng seeds(seed);
    const double scale = (scaler_ ? scaler_->scale() : 1) / static_cast<double>(std::max<int64_t>(1, targets));
    accumulate(step, seeds, [&](const MicroBatch& batch, uint64_t batch_seed, double share) {
      objective_.accumulate_drawn(batch, share * scale, batch_seed);
      return 0.0;
    });
    if (!scaler_ || unscale()) optimizer_.update_hessian(static_cast<double>(targets));
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
    throw Diverged(ErrorKind::invalid_input,
                   fmt::format("{} steps in a row had a loss or gradient that is not finite, up to step {}: the run ends{}; a lower learning rate or "
                               "other data may help",
                               kNonFiniteInARow, step_ + 1, folder_ ? fmt::format(", with a checkpoint of step {}", step_) : ""));
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
      const auto loss = evaluate();
      if (loss) {
        row.has_eval = result_.has_eval = true;
        row.eval_loss = result_.eval_loss = *loss;
        for (StepHook* hook : hooks_) hook->evaluated(*loss);
      }
    }
    pending_.reset();
    if (!leads()) return;
    if (step_ == 1) result_.loss_first = row.loss;
    if (!row.skipped) result_.loss_last = row.loss;
    if (step_ % options_.logging_steps != 0 && step_ != 1 && !last && !row.has_eval && !row.skipped) return;
    row.elapsed_seconds = watch_.seconds();
    const auto done = static_cast<double>(std::max<int64_t>(1, step_ - result_.first_step));
    row.remaining_seconds = row.elapsed_seconds / done * static_cast<double>(plan_.total() - step_);
    row.peak_rss_bytes = peak_rss_bytes();
    if (!log_) return;
    history_.push_back(row.history());
    try {
      log_->write(row);
    } catch (const Error& error) {
      log_warning("the log has no step {} before the next is written: {}", step_, error.what());
    }
  }

  std::optional<double> evaluate() {
    if (!ranks_ || !ranks_->shards_parameters()) return !ranks_ || ranks_->group().leads() ? objective_.evaluate() : std::nullopt;
    ranks_->come(DataParallel::kOutside);
    const auto loss = objective_.evaluate();
    ranks_->go(DataParallel::kOutside);
    return loss;
  }

  // At the `end` of the run it is an error when it cannot be written. All ranks save together: what is not written at rank 0 is written at none.
  void save(bool end) {
    if (!folder_) return;
    TensorMap state;
    if (ranks_)
      state = ranks_->gather_state(optimizer_);
    else
      state = own_state();
    std::optional<std::string> problem;
    if (ranks_) ranks_->come_to_leader();
    if (leads()) {
      try {
        write(std::move(state));
      } catch (const Error& error) {
        if (end || error.kind() == ErrorKind::internal) throw;
        problem = error.what();
      }
    }
    if (ranks_) {
      const Json said = ranks_->of_leader(problem ? Json(*problem) : Json());
      if (!said.is_null()) problem = said.get<std::string>();
      ranks_->go_from_leader();
    }
    save_is_due_ = problem.has_value();
    is_saved_ = !problem;
    if (problem && leads()) log_warning("no checkpoint at step {}, it is tried again after the next: {}", step_, *problem);
  }

  TensorMap own_state() {
    TensorMap state;
    optimizer_.for_each_state([&](const std::string& name, at::Tensor& tensor) { state[name] = tensor; });
    return state;
  }

  void write(TensorMap optimizer_state) {
    Checkpoint checkpoint{step_, {}, {}, std::move(optimizer_state)};
    for (const Parameter& parameter : whole_parameters()) checkpoint.parameters[parameter.name] = parameter.tensor;
    for (StepHook* hook : hooks_) {
      hook->for_each_state([&](const std::string& name, at::Tensor& state) { checkpoint.optimizer[kHookState + name] = state; });
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
                        {"ranks", rank_count()},
                        {"fingerprint", fingerprint_},
                        {"grad_scaler", scaler_ ? scaler_->state() : Json()},
                        {"unfinished_step", pending_ ? pending_->numbers() : Json()},
                        {"log_history", history_}};
    write_checkpoint(folder_->path(), checkpoint, add_files());
    prune_checkpoints(folder_->path(), options_.save_total_limit);
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
    std::optional<Checkpoint> checkpoint;
    if (leads()) checkpoint = newest_checkpoint(folder_->path());
    Json stored = checkpoint ? checkpoint->state : Json();
    if (ranks_) stored = ranks_->of_leader(stored);
    if (stored.is_null()) return;
    const JsonObject state(stored, fmt::format("{}/checkpoint-{}/trainer_state.json", folder_->path(), stored.value("global_step", Json()).dump()));
    step_ = state.integer("global_step", 0, INT64_MAX);
    const std::string where = fmt::format("{}/checkpoint-{}", folder_->path(), step_);
    require_equal(stored, where);
    if (step_ > plan_.total()) state.fail_at("global_step", fmt::format("is beyond the run's {} steps", plan_.total()));
    if (ranks_) ranks_->come_to_leader();  // that there is room
    if (leads()) {
      const std::vector<Parameter>& whole = whole_parameters();
      if (checkpoint->parameters.size() != whole.size())
        fail(ErrorKind::invalid_input, "{}: is of another run: {} parameters, here are {}", where, checkpoint->parameters.size(), whole.size());
      for (const Parameter& parameter : whole) {
        at::Tensor tensor = parameter.tensor;
        copy_named(checkpoint->parameters, parameter.name, tensor, where);
      }
    }
    optimizer_.prepare_step(step_);
    TensorMap states = checkpoint ? checkpoint->optimizer : TensorMap();
    for (StepHook* hook : hooks_) load_hook(*hook, states, where);
    if (ranks_) {
      ranks_->take_leaders_parameters();
      ranks_->go_from_leader();
      ranks_->load_state(optimizer_, states, where);
    } else {
      load_state(optimizer_, states, where);
    }
    tokens_ = state.integer("num_input_tokens_seen", 0, INT64_MAX);
    skipped_ = state.integer("skipped_steps", 0, INT64_MAX);
    non_finite_ = static_cast<int>(state.integer("not_finite_in_a_row", 0, kNonFiniteInARow));
    hessian_step_ = state.integer("hessian_step", -1, INT64_MAX);
    mean_loss_ = state.number("mean_loss", 0, 1e300);
    result_.loss_first = state.number("loss_first", -1e300, 1e300);
    result_.loss_last = state.number("loss_last", -1e300, 1e300);
    if (scaler_ && state.has("grad_scaler")) scaler_->load(state.object("grad_scaler"));
    if (state.has("unfinished_step")) pending_ = LogRow::of_numbers(state.object("unfinished_step"));
    history_ = stored.value("log_history", Json::array());
    is_saved_ = true;
    log_info("resumed at step {} of {}", step_, plan_.total());
  }

  // Takes the hook's part out of `states`, which rank 0 has.
  void load_hook(StepHook& hook, TensorMap& states, const std::string& where) {
    hook.for_each_state([&](const std::string& name, at::Tensor& state) {
      if (leads()) copy_named(states, kHookState + name, state, where);
      states.erase(kHookState + name);
      if (ranks_) ranks_->group().broadcast(state, 0)->wait();
    });
  }

  // The order of sums, which threads and ranks decide, is another's anyhow where ranks come or go.
  void require_equal(const Json& stored, const std::string& where) const {
    const Json before = stored.value("fingerprint", Json::object()).flatten(), now = fingerprint_.flatten();
    const int64_t ranks_before = stored.value("ranks", int64_t{1});
    if (ranks_before != rank_count() && leads()) log_warning("{}: the run had {} ranks, goes on with {}", where, ranks_before, rank_count());
    for (const auto& [key, value] : now.items()) {
      const Json other = before.value(key, Json());
      if (key == "/threads" && (ranks_before > 1 || rank_count() > 1)) continue;
      if (other != value) differs(where, key.substr(1), other, value);
    }
    for (const auto& [key, value] : before.items()) {
      if (!value.is_null() && !now.contains(key)) differs(where, key.substr(1), value, Json());
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
  const RunFolder* folder_;  // null: nothing is written
  const TrainerOptions& options_;
  const CheckpointFiles& files_;
  DataParallel* ranks_;  // null: this process alone
  std::vector<StepHook*> hooks_;
  StepPlan plan_;
  Json fingerprint_;
  Json history_ = Json::array();
  TrainResult result_;
  Stopwatch watch_;
  std::optional<RunLog> log_;
  std::optional<GradScaler> scaler_;  // with scale_loss
  std::optional<LogRow> pending_;     // of a step that is done, until its row is written
  int64_t step_ = 0, tokens_ = 0, skipped_ = 0, hessian_step_ = -1;
  int non_finite_ = 0;
  double mean_loss_ = 0;
  bool all_stop_ = false, save_is_due_ = false, is_saved_ = true;  // saved: there is nothing that the newest checkpoint does not hold
};

}  // namespace

TrainResult train(Objective& objective, const std::vector<Parameter>& parameters, Optimizer& optimizer, const RunFolder& folder, const TrainerOptions& options,
                  const Json& fingerprint, const CheckpointFiles& files, DataParallel* ranks) {
  FRUGAL_ASSERT(options.gradient_accumulation_steps > 0 && options.logging_steps > 0);
  return Run(objective, parameters, optimizer, &folder, options, fingerprint, files, ranks).run();
}

TrainResult train(Objective& objective, const std::vector<Parameter>& parameters, Optimizer& optimizer, const TrainerOptions& options) {
  FRUGAL_ASSERT(options.gradient_accumulation_steps > 0 && options.logging_steps > 0);
  return Run(objective, parameters, optimizer, nullptr, options, Json::object(), {}, nullptr).run();
}

}  // namespace frugal::train
