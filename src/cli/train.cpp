// frugal train: pre-training, of a new model or of one that is there.
#include <filesystem>

#include "base/error.h"
#include "base/method_choice.h"
#include "chain/chain.h"
#include "cli/context.h"
#include "cli/resources.h"
#include "cli/training.h"
#include "nn/sharing.h"
#include "quantize/trained_quantization.h"
#include "share/share_table.h"
#include "text/tokenizer.h"
#include "train/full_parameters.h"
#include "train/new_model.h"

namespace frugal::cli {
namespace {

constexpr double kNewRate = 1e-3, kContinuedRate = 5e-5;

struct TrainValues {
  std::string model, tokenizer;
  std::map<std::string, std::string> shape;
  TrainingValues training;
};

using TrainedForm = std::optional<MethodChoice<quantize::TrainedQuantization>>;

// What --method says: the form that the matrices train in, or an architecture.
struct TrainMethod {
  TrainedForm form;
  std::optional<MethodChoice<share::SharedArchitecture>> architecture;
};

TrainMethod method_of(const std::string& text) {
  if (text.empty()) return {};
  if (share::share_table().find(parse_step(text).id)) return {{}, choose_method(share::share_table(), text)};
  return {choose_method(quantize::trained_quantization_table(), text), {}};
}

// Flags first, then the file's keys.
Options shape_of(const TrainValues& values, const TrainingPlan& plan, const TrainMethod& method) {
  std::map<std::string, std::string> given = plan.extra;
  for (const auto& [name, value] : values.shape) given[name] = value;
  given.erase("tokenizer");
  if (method.form && method.form->row->function.sub_norms) given.emplace("sub_norms", "true");
  if (method.architecture) {
    const std::string sharing = method.architecture->row->function.sharing;
    if (const auto [there, added] = given.emplace("sharing", sharing); !added && there->second != sharing)
      fail(ErrorKind::invalid_input, "sharing is {}, {} shares {}: give one of them", there->second, method.architecture->row->id, sharing);
  }
  return Options("shape", train::shape_options(), {given.begin(), given.end()});
}

// What --show needs of a new model: its tokenizer.
nn::LoadedModel words_of(const std::string& tokenizer) {
  nn::LoadedModel model;
  model.tokenizer = text::load_tokenizer_directory(tokenizer);
  model.name = tokenizer;
  return model;
}

// What of the model is trained, and what becomes of it.
TrainingJob job_of(const Context& context, const Ranks& ranks, const TrainingData& data, const TrainedForm& form, nn::LoadedModel& model) {
  TrainingJob job{
      .ranks = ranks, .model = model, .data = data, .fingerprint = {{"method", "train"}}, .what = "model", .files = whole_model_files(context, model)};
  if (!form) {
    job.parameters = train::all_parameters(*model.model);
  } else {
    job.parameters = form->row->function.begin(*model.model, form->options);
    job.fingerprint["form"] = chain::canonical_text(form->row->id, form->options);
    job.files = [&context, &model, form](const std::string& folder) {
      nn::LoadedModel stored = model;
      stored.model = std::make_shared<nn::Model>(*model.model);
      form->row->function.store(*stored.model, form->options);
      whole_model_files(context, stored)(folder);
    };
  }
  job.flops = train::training_flops(*model.model);
  return job;
}

void run(Context& context, TrainValues& values) {
  std::vector<std::string> own_keys = {"tokenizer"};
  for (const OptionSpec& spec : train::shape_options()) own_keys.push_back(spec.name);
  const TrainingPlan plan = training_plan(values.training, true, own_keys);
  const std::string base = values.model.empty() ? plan.base_model : values.model;
  const bool is_new = base.empty();
  if (!is_new && !(values.shape.empty() && values.tokenizer.empty() && plan.extra.empty())) {
    fail(ErrorKind::invalid_input, "a model that is there has its shape and tokenizer: leave the model or these options out");
  }
  const TrainMethod method = method_of(plan.method);
  if (!is_new && method.architecture)
    fail(ErrorKind::invalid_input, "{} is an architecture of new models: leave it or the model out", method.architecture->row->id);
  const Options shape = shape_of(values, plan, method);
  const auto found = plan.extra.find("tokenizer");
  const std::string tokenizer = !values.tokenizer.empty() ? values.tokenizer : found == plan.extra.end() ? "" : found->second;
  if (is_new && tokenizer.empty()) {
    fail(ErrorKind::invalid_input, "a new model needs --tokenizer, a folder with one (frugal tokenizer train makes it); or name a model to go on with");
  }
  if (values.training.show > 0) {
    const nn::LoadedModel words = is_new ? words_of(tokenizer) : load_model(context, base);
    return show_examples(words, load_training_data(context, plan, words, true).train, values.training.show);
  }
  const Ranks ranks(context);
  const train::RunFolder folder(plan.output, existing_of(values.training), ranks.leads());
  // A new model lies beside its run: what it began with, and where its tokenizer's files are.
  const std::string initial = plan.output + "/initial";
  if (is_new && ranks.leads()) train::write_new_model(initial, shape, tokenizer, context.method_seed());
  ranks.meet();
  nn::LoadedModel model = load_model(context, is_new ? initial : base);
  if (method.form && nn::sharing_of(model.model->spec).any())
    fail(ErrorKind::unsupported, "{}: a {}'s blocks share weights: they train as floats", method.form->row->id, model.model->spec.family);
  const TrainingData data = load_training_data(context, plan, model, true);
  TrainingJob job = job_of(context, ranks, data, method.form, model);
  if (const std::string& initialization = shape.text("initialization"); is_new && !initialization.empty()) {
    train::scale_rates(shape, model.model->spec, optimizer_of(plan).row->id, job.parameters);
    job.fingerprint["initialization"] = initialization;
  }
  job.options = trainer_options(values.training, plan, context, is_new ? kNewRate : kContinuedRate);
  if (const std::string state = base + "/" + kOptimizerState; !is_new && std::filesystem::is_regular_file(state)) job.optimizer_state = state;
  run_training(context, plan, folder, job);
}

}  // namespace

void add_train(CLI::App& app, Context& context) {
  const auto values = std::make_shared<TrainValues>();
  Verb verb = new_verb(app, context, "train", "Pre-train a model on texts: a new one by its shape, or one that is there",
                       [&context, values] { stoppable([&] { run(context, *values); }); });
  verb.text("model,-m,--model,--hf-repo", values->model, "Path or hub name of a model to go on with; without it a new one is made")
      .text("--method", values->training.method,
            fmt::format("The form that its matrices train in, or what of a new model's blocks is shared, id or id:key=value,...: {}, {} [floats]",
                        ids_of(quantize::trained_quantization_table()), ids_of(share::share_table())))
      .text("--tokenizer", values->tokenizer, "Folder with the new model's tokenizer");
  add_shape_flags(verb, values->shape);
  add_training_flags(verb, values->training);
}

}  // namespace frugal::cli
