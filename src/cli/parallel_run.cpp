#include "cli/parallel_run.h"

#include <algorithm>

#include "base/error.h"
#include "nn/sharing.h"

namespace frugal::cli {
namespace {

// What moves each number by itself, so that a part of a matrix moves as it does in the whole.
constexpr const char* kElementwise[] = {"adamw", "lion", "sgd"};

void check_strategy(const TrainingPlan& plan, const TrainingJob& job, const std::string& optimizer, train::Strategy strategy) {
  if (optimizer == "mezo") fail(ErrorKind::unsupported, "optimizer: mezo has no gradients that processes could share: one process");
  if (job.sampling)
    fail(ErrorKind::unsupported, "method: {} trains in one process, not in {}", job.fingerprint.at("method").get<std::string>(), job.ranks.size());
  if (optimizer == "schedule-free" && strategy != train::Strategy::ddp)
    fail(ErrorKind::unsupported, "strategy: {} evaluates elsewhere than it trains, which takes all parameters at each process: ddp", optimizer);
  if (job.options.hook && strategy != train::Strategy::ddp)
    fail(ErrorKind::unsupported, "strategy: this adapter looks at all gradients between steps, which each process has under ddp only");
  const auto refuse = [&](bool when, const char* what) {
    if (strategy == train::Strategy::zero3 && when)
      fail(ErrorKind::unsupported, "strategy: zero3 shards a model that trains whole by next-token loss, {}: zero2", what);
  };
  refuse(job.what != "model", "not adapters, whose base stays whole");
  refuse(job.objective != nullptr || plan.run.text("rl") != "none", "not a distillation or preferences");
  refuse(job.fingerprint.contains("form"), "not in a form of its own");
  refuse(nn::sharing_of(job.model.model->spec).any(), "whose blocks each have weights of their own");
  refuse(plan.run.given("recompute_every"), "and recomputes every block");
}

void check_model_parallel(const TrainingPlan& plan, const TrainingJob& job, const std::string& optimizer, train::Strategy strategy,
                          train::ModelParallelSize size) {
  const char* name = size.tensor > 1 ? "tensor_parallel_size" : "pipeline_parallel_size";
  const auto refuse = [&](bool when, const char* what) {
    if (when) fail(ErrorKind::unsupported, "{}: processes share a model that trains whole by next-token loss, {}", name, what);
  };
  refuse(job.what != "model", "not an adapter: strategy shares its micro-batches");
  refuse(job.objective != nullptr || plan.run.text("rl") != "none", "not a distillation or preferences: strategy shares their micro-batches");
  refuse(job.fingerprint.contains("form"), "not in a form of its own");
  refuse(nn::sharing_of(job.model.model->spec).any(), "whose blocks each have weights of their own");
  if (std::find(std::begin(kElementwise), std::end(kElementwise), optimizer) == std::end(kElementwise))
    fail(ErrorKind::unsupported, "{}: {} moves whole matrices, of which a process has a part: {}", name, optimizer, fmt::join(kElementwise, ", "));
  if (strategy == train::Strategy::zero3) fail(ErrorKind::unsupported, "{}: zero3 shares the weights in another way: ddp, zero1 or zero2", name);
  if (size.pipeline > 1 && strategy != train::Strategy::ddp)
    fail(ErrorKind::unsupported, "pipeline_parallel_size: stages share the optimizer's state by themselves: ddp, not {}", plan.run.text("strategy"));
  train::ModelParallel::check(job.model.model->spec, size, static_cast<int>(job.ranks.size()));
}

}  // namespace

ParallelRun parallel_run(const TrainingPlan& plan, TrainingJob& job, const std::string& optimizer) {
  const train::Strategy strategy = strategy_of(plan.run.text("strategy"));
  const train::ModelParallelSize size{static_cast<int>(plan.run.integer("tensor_parallel_size")), static_cast<int>(plan.run.integer("pipeline_parallel_size"))};
  ParallelRun run;
  if (size.ranks() > 1) check_model_parallel(plan, job, optimizer, strategy, size);
  if (!job.ranks.are_several()) return run;
  const int64_t batches = plan.run.integer("gradient_accumulation_steps"), copies = job.ranks.size() / size.ranks();
  if (batches < copies) {
    fail(ErrorKind::invalid_input, "gradient_accumulation_steps: a step has {} micro-batch{} for {} {}: it must be at least {}", batches,
         batches == 1 ? "" : "es", copies, size.ranks() > 1 ? "copies of the model" : "processes", copies);
  }
  check_strategy(plan, job, optimizer, strategy);
  if (size.ranks() > 1) run.model = std::make_unique<train::ModelParallel>(job.ranks.group(), size, *job.model.model, job.parameters);
  run.ranks = std::make_unique<train::DataParallel>(run.model ? run.model->data() : job.ranks.group(), strategy, job.parameters, run.model.get());
  return run;
}

}  // namespace frugal::cli
