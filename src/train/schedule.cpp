#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>
#include <set>

#include "base/error.h"

namespace frugal::train {
namespace {

using std::numbers::pi;

struct Run {
  const Options& options;
  int64_t step, total, warmup, decay;

  double number(std::string_view name) const { return options.number(name); }
  // Of the part after the warm-up.
  double progress() const { return static_cast<double>(step - warmup) / std::max<int64_t>(1, total - warmup); }
};

double between(double least, double share) { return share * (1 - least) + least; }
double half_wave(double cycles, double progress) { return 0.5 * (1 + std::cos(pi * cycles * 2 * progress)); }

double constant(const Run& run) { return 1; }
double linear(const Run& run) { return std::max(0.0, static_cast<double>(run.total - run.step) / std::max<int64_t>(1, run.total - run.warmup)); }
double cosine(const Run& run) { return std::max(0.0, half_wave(run.number("num_cycles"), run.progress())); }
double cosine_with_min_lr(const Run& run) { return std::max(0.0, between(run.number("min_lr_rate"), half_wave(run.number("num_cycles"), run.progress()))); }

double warmup_stable_decay(const Run& run) {
  const int64_t past = run.step - (run.total - run.decay);
  if (past < 0) return 1;
  const double least = run.number("min_lr_rate");
  if (past >= run.decay) return least;
  const double progress = static_cast<double>(past) / run.decay;
  const std::string& type = run.options.text("decay_type");
  const double share = type == "linear" ? 1 - progress : type == "1-sqrt" ? 1 - std::sqrt(progress) : half_wave(run.number("num_cycles"), progress);
  return std::max(0.0, between(least, share));
}

double inverse_sqrt(const Run& run) {
  int64_t timescale = run.options.integer("timescale");
  if (timescale == 0) timescale = run.warmup > 0 ? run.warmup : 10'000;
  return 1 / std::sqrt(static_cast<double>(run.step + timescale - run.warmup) / timescale);
}

struct Type {
  double (*after_warmup)(const Run&);
  std::set<std::string_view> reads;  // beside lr_scheduler_type
};

const std::map<std::string, Type, std::less<>>& types() {
  static const std::map<std::string, Type, std::less<>> all = {
      {"linear", {linear, {"warmup_steps", "warmup_ratio"}}},
      {"cosine", {cosine, {"warmup_steps", "warmup_ratio", "num_cycles"}}},
      {"constant", {constant, {}}},
      {"constant_with_warmup", {constant, {"warmup_steps", "warmup_ratio"}}},
      {"cosine_with_min_lr", {cosine_with_min_lr, {"warmup_steps", "warmup_ratio", "num_cycles", "min_lr_rate"}}},
      {"warmup_stable_decay", {warmup_stable_decay, {"warmup_steps", "warmup_ratio", "num_cycles", "min_lr_rate", "num_decay_steps", "decay_type"}}},
      {"inverse_sqrt", {inverse_sqrt, {"warmup_steps", "warmup_ratio", "timescale"}}},
  };
  return all;
}

const Type& checked_type(const Options& options) {
  const std::string& name = options.text("lr_scheduler_type");
  const Type& type = types().at(name);
  for (const OptionSpec& option : schedule_options()) {
    if (option.name == "lr_scheduler_type" || !options.given(option.name) || type.reads.contains(option.name)) continue;
    fail(ErrorKind::invalid_input, "lr_scheduler_type {} has no {}{}", name, option.name,
         name == "constant" && option.name.starts_with("warmup") ? "; constant_with_warmup has" : "");
  }
  return type;
}

int64_t warmup_steps(const Options& options, int64_t total) {
  if (options.given("warmup_steps") && options.given("warmup_ratio"))
    fail(ErrorKind::invalid_input, "warmup_steps and warmup_ratio are both given: one is enough");
  if (options.given("warmup_steps")) return options.integer("warmup_steps");
  return static_cast<int64_t>(std::ceil(static_cast<double>(total) * options.number("warmup_ratio")));
}

int64_t decay_steps(const Options& options, int64_t total) {
  const int64_t given = options.integer("num_decay_steps");
  return given > 0 ? given : (total + 9) / 10;
}

}  // namespace

const std::vector<OptionSpec>& schedule_options() {
  static const std::vector<OptionSpec> options = [] {
    std::vector<std::string> names;
    for (const auto& [name, type] : types()) names.push_back(name);
    return std::vector<OptionSpec>{
        choice_option("lr_scheduler_type", "linear", names, "how the learning rate goes on after the warm-up"),
        integer_option("warmup_steps", 0, 0, 1'000'000'000, "steps in which the rate grows from 0"),
        number_option("warmup_ratio", 0, 0, 1, "the same as a share of all steps"),
        number_option("num_cycles", 0.5, 0, 1000, "waves of the cosine; a half goes from all to the least"),
        number_option("min_lr_rate", 0, 0, 1, "cosine_with_min_lr, warmup_stable_decay: the least rate, as a share of the highest"),
        integer_option("num_decay_steps", 0, 0, 1'000'000'000, "warmup_stable_decay: steps of the decay at the end; 0: a tenth of all"),
        choice_option("decay_type", "cosine", {"cosine", "linear", "1-sqrt"}, "warmup_stable_decay: how it decays"),
        integer_option("timescale", 0, 0, 1'000'000'000, "inverse_sqrt: steps after which the rate begins to halve; 0: the warm-up, 10000 without one"),
    };
  }();
  return options;
}

double schedule_factor(const Options& options, int64_t step, int64_t total) {
  const Type& type = checked_type(options);
  const Run run{options, step, total, warmup_steps(options, total), decay_steps(options, total)};
  const bool decays_at_the_end = type.after_warmup == warmup_stable_decay;
  if (decays_at_the_end && run.warmup + run.decay > total) {
    fail(ErrorKind::invalid_input, "{} warm-up steps and {} decay steps do not fit into {} steps", run.warmup, run.decay, total);
  }
  if (step >= run.warmup) return type.after_warmup(run);
  const double share = static_cast<double>(step) / run.warmup;
  return decays_at_the_end ? between(run.number("min_lr_rate"), share) : share;  // as transformers
}

}  // namespace frugal::train
