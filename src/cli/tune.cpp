// frugal tune: a model learns from rows of data, in an adapter beside its weights or in the weights themselves.
#include "base/error.h"
#include "cli/context.h"
#include "cli/resources.h"
#include "cli/tuning.h"

namespace frugal::cli {
namespace {

struct TuneValues {
  std::string model;
  TrainingValues training;
};

void run(Context& context, TuneValues& values) {
  const TrainingPlan plan = training_plan(values.training, false);
  const std::string base = values.model.empty() ? plan.base_model : values.model;
  if (base.empty()) fail(ErrorKind::invalid_input, "no model: name one, or give base_model in --config");
  const WayToTune way = way_to_tune(plan.method);
  const Ranks ranks(context);
  nn::LoadedModel model = load_model(context, base);
  const TrainingData data = load_training_data(context, plan, model, false);
  if (values.training.show > 0) return show_examples(model, data.train, values.training.show);
  const train::RunFolder folder(plan.output, existing_of(values.training), ranks.leads());
  tune_model({.ranks = ranks, .context = context, .values = values.training, .plan = plan, .way = way, .base = base, .model = model, .data = data}, folder);
}

}  // namespace

void add_tune(CLI::App& app, Context& context) {
  const auto values = std::make_shared<TuneValues>();
  values->training.default_method = "lora";
  Verb verb = new_verb(app, context, "tune", "Tune a model on rows of data: an adapter that peft reads, or the whole model",
                       [&context, values] { stoppable([&] { run(context, *values); }); });
  verb.text("model,-m,--model,--hf-repo", values->model, "Path or hub name")
      .text("--method", values->training.method, fmt::format("What is trained, id or id:key=value,...: {} [lora]", ways_to_tune()));
  add_training_flags(verb, values->training);
}

}  // namespace frugal::cli
