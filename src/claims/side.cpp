#include "claims/side.h"

#include <algorithm>

#include "base/error.h"
#include "train/new_model.h"
#include "train/schedule.h"

namespace frugal::claims {
namespace {

constexpr const char *kWholeModel = "full", *kShape = "shape";

const std::vector<std::string>& schedules() { return train::schedule_options().front().choices; }

Options schedule_of(StepText word) {
  word.options.emplace_back("lr_scheduler_type", word.id);
  return Options(word.id, train::schedule_options(), word.options);
}

template <typename T>
bool take(const MethodTable<T>& table, const std::string& word, std::optional<MethodChoice<T>>& part, std::vector<std::string>& known) {
  for (const MethodRow<T>& row : table.rows()) known.push_back(row.id);
  if (!table.find(parse_step(word).id)) return false;
  if (part) fail(ErrorKind::invalid_input, "{} and {} do not go together: both are of one kind", part->row->id, word);
  part = choose_method(table, word);
  return true;
}

}  // namespace

Side parse_side(const std::vector<std::string>& words) {
  Side side;
  side.trains = !words.empty();
  side.schedule = schedule_of(parse_step("cosine:warmup_ratio=0.1"));
  for (const std::string& word : words) {
    std::vector<std::string> known = {kWholeModel};
    const StepText step = parse_step(word);
    if (take(train::optimizer_table(), word, side.optimizer, known) || take(tune::adapter_table(), word, side.adapter, known) ||
        take(tune::layer_sampling_table(), word, side.sampling, known) || take(distill::distill_table(), word, side.distillation, known) ||
        take(train::growth_table(), word, side.growth, known) || take(share::share_table(), word, side.architecture, known) ||
        take(train::initialization_table(), word, side.initialization, known)) {
      if (train::initialization_table().find(step.id)) side.initialization_text = word;
      continue;
    }
    if (step.id == kShape) {
      Options(kShape, train::shape_options(), step.options);
      side.shape = step.options;
      continue;
    }
    if (std::find(schedules().begin(), schedules().end(), step.id) != schedules().end()) {
      side.schedule = schedule_of(step);
      continue;
    }
    known.insert(known.end(), schedules().begin(), schedules().end());
    if (word != kWholeModel) fail(ErrorKind::invalid_input, "\"{}\" is no part of a training{}", printable(word), did_you_mean(step.id, known));
  }
  if (side.architecture) side.shape.emplace_back("sharing", side.architecture->row->function.sharing);
  if (side.sampling && side.adapter)
    fail(ErrorKind::invalid_input, "{} trains the whole model, {} beside it: give one", side.sampling->row->id, side.adapter->row->id);
  if (!side.optimizer) side.optimizer = choose_method(train::optimizer_table(), "adamw");
  return side;
}

std::unique_ptr<train::Optimizer> optimizer_of(const Side& side, const std::vector<train::Parameter>& parameters, uint64_t seed) {
  const auto& [row, options] = *side.optimizer;
  if (!side.sampling) return row->function(parameters, options);
  return std::make_unique<train::LayerSampler>(parameters, side.sampling->row->function(side.sampling->options, seed), *row, options);
}

}  // namespace frugal::claims
