#include "train/run_history.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "train/checkpoint.h"
#include "train/run_folder.h"

namespace frugal::train {
namespace fs = std::filesystem;
namespace {

constexpr size_t kMaxConfigBytes = size_t{16} << 20;

// The middle one of the finite values.
std::optional<double> median(std::vector<double> values) {
  std::erase_if(values, [](double value) { return !std::isfinite(value); });
  if (values.empty()) return {};
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// What an adapter says that it is for.
std::string base_of_adapter(const std::string& folder) {
  const std::string path = folder + "/adapter_config.json";
  if (!fs::exists(path)) return "";
  try {
    const Json config = parse_json(read_text_file(path, kMaxConfigBytes), path);
    return JsonObject(config, path).text_or("base_model_name_or_path", "");
  } catch (const Error& error) {
    log_warning("what the run is of is not known: {}", error.what());
    return "";
  }
}

// What its checkpoint says of a run.
void read_state(RunHistory& run, const Json& json) {
  const JsonObject state(json, run.path + ": trainer_state.json");
  const int64_t step = state.integer_or("global_step", 0, 0, INT64_MAX);
  run.steps = std::max(run.steps, step);
  if (run.total_steps == 0) run.total_steps = state.integer_or("max_steps", 0, 0, INT64_MAX);
  run.model = base_of_adapter(fmt::format("{}/checkpoint-{}", run.path, step));
  if (!state.has("fingerprint")) return;
  const JsonObject fingerprint = state.object("fingerprint");
  run.method = fingerprint.text_or("method", "");
  if (const std::string distillation = fingerprint.text_or("distillation", ""); !distillation.empty())
    run.method = fmt::format("{} ({})", distillation, run.method);
  run.optimizer = fingerprint.text_or("optimizer", "");
  if (run.model.empty() && fingerprint.has("model")) run.model = "sha256:" + fingerprint.text("model").substr(0, 12);
}

template <typename Get>
std::optional<double> last_finite(const std::vector<LogRow>& rows, const Get& get) {
  for (auto row = rows.rbegin(); row != rows.rend(); ++row) {
    const std::optional<double> value = get(*row);
    if (value && std::isfinite(*value)) return value;
  }
  return {};
}

// The least number of last parts of each path that tells it from all others.
void name_runs(std::vector<RunHistory>& runs) {
  for (RunHistory& run : runs) {
    const fs::path path = run.path;
    fs::path name;
    for (auto part = path.end(); part != path.begin();) {
      name = name.empty() ? *--part : *--part / name;
      const auto ends_so = [&](const RunHistory& other) {
        const std::string tail = "/" + name.string();
        return &other != &run && ("/" + other.path).ends_with(tail);
      };
      if (std::none_of(runs.begin(), runs.end(), ends_so)) break;
    }
    run.name = name.string();
  }
}

}  // namespace

const char* to_string(RunState state) { return state == RunState::running ? "running" : state == RunState::finished ? "finished" : "stopped"; }

int64_t RunHistory::skipped() const {
  return std::count_if(rows.begin(), rows.end(), [](const LogRow& row) { return row.skipped; });
}

// Each process counts its own from 0.
double RunHistory::seconds() const {
  double before = 0, last = 0;
  for (const LogRow& row : rows) {
    if (row.elapsed_seconds < last) before += last;
    last = row.elapsed_seconds;
  }
  return before + last;
}

double RunHistory::tokens_per_second() const {
  std::vector<double> values;
  for (const LogRow& row : rows) values.push_back(row.tokens_per_second);
  return median(std::move(values)).value_or(0);
}

std::optional<double> RunHistory::mfu() const {
  std::vector<double> values;
  for (const LogRow& row : rows) {
    if (row.mfu) values.push_back(*row.mfu);
  }
  return median(std::move(values));
}

uint64_t RunHistory::peak_rss_bytes() const {
  uint64_t peak = 0;
  for (const LogRow& row : rows) peak = std::max(peak, row.peak_rss_bytes);
  return peak;
}

std::optional<double> RunHistory::first_loss() const {
  const auto found = std::find_if(rows.begin(), rows.end(), [](const LogRow& row) { return std::isfinite(row.loss); });
  return found == rows.end() ? std::nullopt : std::optional(found->loss);
}

std::optional<double> RunHistory::last_loss() const {
  return last_finite(rows, [](const LogRow& row) { return std::optional(row.loss); });
}

const LogRow* RunHistory::lowest_loss() const {
  const LogRow* lowest = nullptr;
  for (const LogRow& row : rows) {
    if (std::isfinite(row.loss) && (!lowest || row.loss < lowest->loss)) lowest = &row;
  }
  return lowest;
}

std::optional<double> RunHistory::eval_loss() const {
  return last_finite(rows, [](const LogRow& row) { return row.has_eval ? std::optional(row.eval_loss) : std::nullopt; });
}

RunHistory read_run(const std::string& folder) {
  RunHistory run;
  run.path = folder;
  const std::string log = folder + "/trainer_log.jsonl";
  if (fs::exists(log)) run.rows = read_run_log(log);
  if (!run.rows.empty()) {
    run.steps = run.rows.back().step;
    run.total_steps = run.rows.back().total_steps;
  }
  if (const auto state = newest_state(folder)) read_state(run, *state);
  if (fs::exists(folder + "/initial")) run.model = "new";
  const bool done = run.total_steps > 0 && run.steps >= run.total_steps;
  run.state = is_training(folder) ? RunState::running : done && holds_result(folder) ? RunState::finished : RunState::stopped;
  return run;
}

std::vector<RunHistory> read_runs(const std::vector<std::string>& folders) {
  std::vector<RunHistory> runs;
  std::set<fs::path> seen;
  for (const std::string& folder : folders) {
    for (const std::string& found : find_run_folders(folder)) {
      const fs::path whole = fs::canonical(found);
      if (!seen.insert(whole).second) continue;
      runs.push_back(read_run(whole.string()));
    }
  }
  name_runs(runs);
  return runs;
}

Json to_json(const RunHistory& run) {
  const auto number = [](const std::optional<double>& value) { return value ? Json(*value) : Json(); };
  const auto text = [](const std::string& value) { return value.empty() ? Json() : Json(value); };
  const LogRow* lowest = run.lowest_loss();
  Json json = {{"name", run.name},
               {"path", run.path},
               {"state", to_string(run.state)},
               {"method", text(run.method)},
               {"model", text(run.model)},
               {"optimizer", text(run.optimizer)},
               {"steps", run.steps},
               {"total_steps", run.total_steps},
               {"skipped_steps", run.skipped()},
               {"loss_first", number(run.first_loss())},
               {"loss_last", number(run.last_loss())},
               {"loss_lowest", lowest ? Json(lowest->loss) : Json()},
               {"loss_lowest_step", lowest ? Json(lowest->step) : Json()},
               {"eval_loss", number(run.eval_loss())},
               {"tokens", run.rows.empty() ? 0 : run.rows.back().tokens},
               {"tokens_per_second", run.tokens_per_second()},
               {"mfu", number(run.mfu())},
               {"seconds", run.seconds()},
               {"peak_rss_bytes", run.peak_rss_bytes()},
               {"rows", Json::array()}};
  for (const LogRow& row : run.rows) json["rows"].push_back(row.line());
  return json;
}

}  // namespace frugal::train
