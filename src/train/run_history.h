// A run as its folder tells it, whether it goes on or is over.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "train/run_log.h"

namespace frugal::train {

enum class RunState {
  running,   // a process trains into the folder
  finished,  // all steps are done and the result is there
  stopped    // neither: --resume goes on
};
const char* to_string(RunState state);

struct RunHistory {
  std::string path;
  std::string name;                      // short, among others
  std::string method, model, optimizer;  // as far as the folder says: there is a checkpoint; else empty
  RunState state = RunState::stopped;
  int64_t steps = 0, total_steps = 0;  // done, planned; 0: nothing is known yet
  std::vector<LogRow> rows;

  int64_t skipped() const;            // steps in the log that changed nothing
  double seconds() const;             // of all processes that trained, as far as the log has them
  double tokens_per_second() const;   // the median of the rows
  std::optional<double> mfu() const;  // the same
  uint64_t peak_rss_bytes() const;
  std::optional<double> first_loss() const, last_loss() const;  // of those that are finite
  const LogRow* lowest_loss() const;                            // the row with it; null: there is none
  std::optional<double> eval_loss() const;                      // the last
};

// Throws what read_run_log throws. A log that is not there yet has no rows.
RunHistory read_run(const std::string& folder);

// Every run in the folders (find_run_folders), each once, with names that tell them apart.
std::vector<RunHistory> read_runs(const std::vector<std::string>& folders);

// For machines: the figures of a run, and its rows as they are in the log.
Json to_json(const RunHistory& run);

}  // namespace frugal::train
