// The loop: micro-batches to gradients to steps, with logs, checkpoints and resumption. Everything random is a pure function of (seed, step), so
// that a run which was killed and resumed has the weights, the optimizer's state and the losses of one that was not, to the bit.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/error.h"
#include "train/data_parallel.h"
#include "train/objective.h"
#include "train/optimizer.h"
#include "train/parameter.h"
#include "train/run_folder.h"
#include "train/run_log.h"
#include "train/schedule.h"
#include "train/step_hook.h"

namespace frugal::train {

// Losses or gradients that were not finite for several steps on end.
class Diverged : public Error {
 public:
  using Error::Error;
};

enum class SpikePolicy { report, skip };

struct TrainerOptions {
  int64_t max_steps = 0;  // 0: num_epochs decides
  double num_epochs = 1;
  int64_t gradient_accumulation_steps = 1;  // micro-batches a step
  double learning_rate = 2e-4;
  Options schedule;          // of schedule_options()
  double max_grad_norm = 1;  // 0: gradients are not clipped
  bool scale_loss = false;   // of float16 activations: train/grad_scaler.h
  uint64_t seed = 0;
  int64_t logging_steps = 1;
  int64_t save_steps = 0;  // 0: at the end only
  int64_t save_total_limit = 2;
  int64_t eval_steps = 0;    // 0: at the end only
  double spike_factor = 10;  // a loss above so many times the running mean is a spike; 0: none is
  SpikePolicy spikes = SpikePolicy::report;
  StepHook* hook = nullptr;    // beside the objective's; may be null
  double peak_flops = 0;       // floating-point operations a second that the machine can do at most; 0: utilisation is not logged
  bool allow_changes = false;  // a resumed run that differs from what it was is reported instead of refused
};

struct TrainResult {
  int64_t steps = 0, total_steps = 0, first_step = 0;  // steps done in all, planned, and before this process
  double loss_first = 0, loss_last = 0, eval_loss = 0;
  bool has_eval = false, stopped = false;  // stopped: a signal came; a checkpoint was written
  int64_t tokens = 0, skipped = 0;
  double seconds = 0;
};

// What else goes into a checkpoint's folder, for other tools (an adapter, a whole model).
using CheckpointFiles = std::function<void(const std::string& folder)>;

// Trains `parameters` in place and leaves them where they are evaluated; checkpoints and logs go into `folder`, which says whether the run goes on
// from the newest checkpoint there. What ends a run early: a stop that was asked for (base/progress.h: finishes no step, writes a checkpoint,
// returns), or three steps in a row whose loss or gradient is not finite (a checkpoint is written, Error{invalid_input}; they change nothing; a scaled loss whose gradient
// overflows counts only when it is scaled no more). A
// checkpoint that cannot be written is reported and tried again at the next step; only at the end of the run is it an error.
// `fingerprint` is what a resumed run must agree in, beside the objective's: Error{invalid_input} names the first difference.
//
// `ranks`: several processes take the steps together, all of which call this; null: this one alone. The optimizer moves what its rank owns. Rank 0 writes
// logs and checkpoints, which do not depend on their number. A stop that any of them was asked for ends all after the step. When another has ended,
// Error{io}: under ddp rank 0 writes a checkpoint first.
TrainResult train(Objective& objective, const std::vector<Parameter>& parameters, Optimizer& optimizer, const RunFolder& folder, const TrainerOptions& options,
                  const Json& fingerprint, const CheckpointFiles& files = {}, DataParallel* ranks = nullptr);

// The same in memory: nothing is written, so a run that is stopped is lost.
TrainResult train(Objective& objective, const std::vector<Parameter>& parameters, Optimizer& optimizer, const TrainerOptions& options);

}  // namespace frugal::train
