#include "claims/side.h"

#include <algorithm>

#include "base/error.h"
#include "train/schedule.h"

namespace frugal::claims {
namespace {

constexpr const char* kWholeModel = "full";

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
        take(distill::distill_table(), word, side.distillation, known) || take(train::growth_table(), word, side.growth, known) ||
        take(train::initialization_table(), word, side.initialization, known)) {
      if (train::initialization_table().find(step.id)) side.initialization_text = word;
      continue;
    }
    if (std::find(schedules().begin(), schedules().end(), step.id) != schedules().end()) {
      side.schedule = schedule_of(step);
      continue;
    }
    known.insert(known.end(), schedules().begin(), schedules().end());
    if (word != kWholeModel) fail(ErrorKind::invalid_input, "\"{}\" is no part of a training{}", printable(word), did_you_mean(step.id, known));
  }
  if (!side.optimizer) side.optimizer = choose_method(train::optimizer_table(), "adamw");
  return side;
}

}  // namespace frugal::claims
