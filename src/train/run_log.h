// What a training run tells while it runs: trainer_log.jsonl (LLaMA-Factory's fields and ours) and TensorBoard events.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace frugal::train {

struct LogRow {
  int64_t step = 0, total_steps = 0;
  double epoch = 0, loss = 0, grad_norm = 0, learning_rate = 0;
  double tokens_per_second = 0, elapsed_seconds = 0, remaining_seconds = 0;
  int64_t tokens = 0;  // of all steps so far
  uint64_t peak_rss_bytes = 0;
  std::optional<double> mfu;               // model FLOP utilisation: a share of the machine's peak
  double eval_loss = 0;                    // with has_eval
  Json metrics = Json::object();           // further numbers by name
  bool has_eval = false, skipped = false;  // skipped: nothing was changed (not finite, or a spike)

  Json line() const;     // of trainer_log.jsonl
  Json history() const;  // of trainer_state.json's log_history, with transformers' names
  // What a step found out, for a checkpoint of a run whose row is not written yet.
  Json numbers() const;
  static LogRow of_numbers(const JsonObject& numbers);
};

// The rows of a trainer_log.jsonl of at most 1 GiB. A number that was not finite was written as null and is NaN here; times are of whole seconds. A last
// line without its end is what a killed or a working run left, and no row. Throws Error{corrupt_file} with the number of a line that is no row or
// whose step does not come after the one before it; Error{io}.
std::vector<LogRow> read_run_log(const std::string& path);

// Rows that a killed run wrote after its last checkpoint (steps above `resumed_step`) are removed first, of TensorBoard's only by what it shows; 0 begins anew. Throws Error{io}.
class RunLog {
 public:
  RunLog(std::string output, int64_t resumed_step);
  ~RunLog();
  void write(const LogRow& row);  // what cannot be written is tried again with the next row

 private:
  struct Events;
  std::string path_, unwritten_;
  std::unique_ptr<Events> events_;
};

}  // namespace frugal::train
