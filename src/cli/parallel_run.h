// How the processes of a run share it.
#pragma once

#include <memory>
#include <string>

#include "cli/training.h"
#include "train/model_parallel.h"

namespace frugal::cli {

struct ParallelRun {
  std::unique_ptr<train::ModelParallel> model;  // null: each process has all of it
  std::unique_ptr<train::DataParallel> ranks;   // null: one process
};

// As the plan says; job.parameters become this process's. Throws Error{invalid_input}, Error{unsupported} where job and plan do not go together.
ParallelRun parallel_run(const TrainingPlan& plan, TrainingJob& job, const std::string& optimizer);

}  // namespace frugal::cli
