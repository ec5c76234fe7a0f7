// frugal tune: a model learns from rows of data, in an adapter beside its weights or in the weights themselves.
#include <filesystem>

#include "base/error.h"
#include "cli/context.h"
#include "cli/resources.h"
#include "cli/training.h"
#include "text/chat_template.h"
#include "train/full_parameters.h"
#include "tune/adapter.h"

namespace frugal::cli {
namespace {

constexpr double kAdapterRate = 2e-4, kFullRate = 2e-5;
constexpr const char* kFull = "full";

struct TuneValues {
  std::string model;
  TrainingValues training;
};

void tune_adapter(const Context& context, const TuneValues& values, const TrainingPlan& plan, nn::LoadedModel& model, const TrainingData& data,
                  const StepText& method) {
  const auto& row = tune::adapter_table().at(method.id);
  const Options options(row.id, row.options, method.options);
  const std::unique_ptr<tune::Adapter> adapter = row.function(*model.model, options, context.method_seed());
  model.model->set_execution(plan.run.boolean("load_in_4bit") ? nn::Execution::stored : nn::Execution::expanded);
  adapter->set_training(true);
  TrainingJob job{model, data, adapter->parameters(), trainer_options(values.training, plan, context, kAdapterRate), {}, {}, {}, {}, {}, true, "adapter"};
  job.fingerprint = {{"method", options.canonical().empty() ? row.id : row.id + ":" + options.canonical()}};
  job.seed_randomness = [&](uint64_t seed) { adapter->seed(seed); };
  job.set_training = [&](bool training) { adapter->set_training(training); };
  job.recompute.random_state = [&] { return adapter->generator_state(); };
  job.recompute.set_random_state = [&](const at::Tensor& state) { adapter->set_generator_state(state); };
  job.files = [&](const std::string& folder) {
    const std::string made = folder + "/.adapter";
    adapter->save(made, model.name);
    for (const auto& entry : std::filesystem::directory_iterator(made)) std::filesystem::rename(entry.path(), folder / entry.path().filename());
    std::filesystem::remove(made);
  };
  run_training(context, plan, job);
}

void tune_all(const Context& context, const TuneValues& values, const TrainingPlan& plan, nn::LoadedModel& model, const TrainingData& data) {
  TrainingJob job{model, data,   train::all_parameters(*model.model), trainer_options(values.training, plan, context, kFullRate), {}, {}, {}, {}, {},
                  false, "model"};
  job.fingerprint = {{"method", kFull}};
  job.files = whole_model_files(context, model);
  run_training(context, plan, job);
}

void run(const Context& context, TuneValues& values) {
  TrainingPlan plan = training_plan(values.training, "--data names the rows to learn from");
  const std::string path = values.model.empty() ? plan.base_model : values.model;
  if (path.empty()) fail(ErrorKind::invalid_input, "no model: name one, or give base_model in --config");
  nn::LoadedModel model = load_model(context, path);
  const TrainingData data = load_training_data(context, plan, model, false);
  if (values.training.show > 0) return show_examples(model, data.train, values.training.show);
  prepare_output(values.training, plan.output);
  const StepText method = parse_step(plan.method.empty() ? "lora" : plan.method);
  if (method.id != kFull) return tune_adapter(context, values, plan, model, data, method);
  if (!method.options.empty()) fail(ErrorKind::invalid_input, "the method {} has no options", kFull);
  tune_all(context, values, plan, model, data);
}

}  // namespace

void add_tune(CLI::App& app, Context& context) {
  const auto values = std::make_shared<TuneValues>();
  std::string methods = kFull;
  for (const auto& row : tune::adapter_table().rows()) methods += ", " + row.id;
  Verb verb = new_verb(app, context, "tune", "Tune a model on rows of data: an adapter that peft reads, or the whole model",
                       [&context, values] { run(context, *values); });
  verb.text("model,-m,--model,--hf-repo", values->model, "Path or hub name")
      .text("--method", values->training.method, "What is trained, id or id:key=value,...: " + methods + " [lora]");
  add_training_flags(verb, values->training);
}

}  // namespace frugal::cli
