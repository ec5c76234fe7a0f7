// frugal tune: a model learns from rows of data, in an adapter beside its weights or in the weights themselves.
#include "base/error.h"
#include "chain/chain.h"
#include "cli/context.h"
#include "cli/resources.h"
#include "cli/training.h"
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

// What is the same for both ways to train.
struct Tuning {
  const Context& context;
  const TuneValues& values;
  const TrainingPlan& plan;
  const std::string& base;  // as the user named it
  nn::LoadedModel& model;
  const TrainingData& data;
};

void tune_adapter(const Tuning& t, const tune::AdapterRow& row, const Options& options) {
  const train::RunFolder folder(t.plan.output, existing_of(t.values.training));
  const std::unique_ptr<tune::Adapter> adapter = row.function(*t.model.model, options, t.context.method_seed());
  t.model.model->set_execution(t.plan.run.boolean("load_in_4bit") ? nn::Execution::stored : nn::Execution::expanded);
  adapter->set_training(true);
  TrainingJob job{.model = t.model,
                  .data = t.data,
                  .parameters = adapter->parameters(),
                  .options = trainer_options(t.values.training, t.plan, t.context, kAdapterRate),
                  .fingerprint = {{"method", chain::canonical_text(row.id, options)}},
                  .what = "adapter",
                  .checkpoints_have_files = true};
  job.seed_randomness = [&](uint64_t seed) { adapter->seed(seed); };
  job.set_training = [&](bool training) { adapter->set_training(training); };
  job.recompute.random_state = [&] { return adapter->generator_state(); };
  job.recompute.set_random_state = [&](const at::Tensor& state) { adapter->set_generator_state(state); };
  job.files = [&](const std::string& into) {
    adapter->save(into + "/.adapter", t.base);
    move_files(into + "/.adapter", into);
  };
  run_training(t.context, t.plan, folder, job);
}

void tune_all(const Tuning& t) {
  const train::RunFolder folder(t.plan.output, existing_of(t.values.training));
  TrainingJob job{.model = t.model,
                  .data = t.data,
                  .parameters = train::all_parameters(*t.model.model),
                  .options = trainer_options(t.values.training, t.plan, t.context, kFullRate),
                  .fingerprint = {{"method", kFull}},
                  .what = "model",
                  .files = whole_model_files(t.context, t.model)};
  run_training(t.context, t.plan, folder, job);
}

void run(const Context& context, TuneValues& values) {
  const TrainingPlan plan = training_plan(values.training, false);
  const std::string base = values.model.empty() ? plan.base_model : values.model;
  if (base.empty()) fail(ErrorKind::invalid_input, "no model: name one, or give base_model in --config");
  const StepText method = parse_step(plan.method.empty() ? "lora" : plan.method);
  const tune::AdapterRow* row = method.id == kFull ? nullptr : &tune::adapter_table().at(method.id);
  const Options options(method.id, row ? row->options : std::vector<OptionSpec>{}, method.options);
  nn::LoadedModel model = load_model(context, base);
  const TrainingData data = load_training_data(context, plan, model, false);
  if (values.training.show > 0) return show_examples(model, data.train, values.training.show);
  const Tuning tuning{context, values, plan, base, model, data};
  if (row)
    tune_adapter(tuning, *row, options);
  else
    tune_all(tuning);
}

}  // namespace

void add_tune(CLI::App& app, Context& context) {
  const auto values = std::make_shared<TuneValues>();
  std::string methods = kFull;
  for (const auto& row : tune::adapter_table().rows()) methods += ", " + row.id;
  Verb verb = new_verb(app, context, "tune", "Tune a model on rows of data: an adapter that peft reads, or the whole model",
                       [&context, values] { stoppable([&] { run(context, *values); }); });
  verb.text("model,-m,--model,--hf-repo", values->model, "Path or hub name")
      .text("--method", values->training.method, "What is trained, id or id:key=value,...: " + methods + " [lora]");
  add_training_flags(verb, values->training);
}

}  // namespace frugal::cli
