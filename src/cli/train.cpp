// frugal train: pre-training, of a new model or of one that is there.
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/log.h"
#include "cli/context.h"
#include "cli/resources.h"
#include "cli/training.h"
#include "train/full_parameters.h"
#include "train/new_model.h"

namespace frugal::cli {
namespace {

namespace fs = std::filesystem;

constexpr double kNewRate = 1e-3, kContinuedRate = 5e-5;

struct TrainValues {
  std::string model, tokenizer;
  std::map<std::string, std::string> shape;
  TrainingValues training;
};

// Flags first, then the file's keys.
Options shape_of(const TrainValues& values, const TrainingPlan& plan) {
  std::map<std::string, std::string> given = plan.extra;
  for (const auto& [name, value] : values.shape) given[name] = value;
  given.erase("tokenizer");
  return Options("shape", train::shape_options(), {given.begin(), given.end()});
}

// The new model lies beside its run: what it began with, and where its tokenizer's files are.
std::string new_model(const Context& context, const TrainValues& values, const TrainingPlan& plan) {
  const auto found = plan.extra.find("tokenizer");
  const std::string tokenizer = !values.tokenizer.empty() ? values.tokenizer : found == plan.extra.end() ? "" : found->second;
  if (tokenizer.empty())
    fail(ErrorKind::invalid_input, "a new model needs --tokenizer, a folder with one (frugal tokenizer train makes it); or name a model to go on with");
  const std::string folder = (plan.output.empty() ? fs::temp_directory_path().string() + fmt::format("/frugal-new-{}", ::getpid()) : plan.output + "/initial");
  if (!plan.output.empty()) fs::create_directories(plan.output);
  train::write_new_model(folder, shape_of(values, plan), tokenizer, context.method_seed());
  return folder;
}

void run(const Context& context, TrainValues& values) {
  std::vector<std::string> own_keys = {"tokenizer"};
  for (const OptionSpec& spec : train::shape_options()) own_keys.push_back(spec.name);
  const TrainingPlan plan = training_plan(values.training, "--data names the texts to learn from", own_keys);
  const std::string given = values.model.empty() ? plan.base_model : values.model;
  const bool is_new = given.empty();
  if (!is_new && !(values.shape.empty() && values.tokenizer.empty()))
    fail(ErrorKind::invalid_input, "a model that is there has its shape and tokenizer: leave the model or these options out");
  if (!plan.method.empty()) fail(ErrorKind::invalid_input, "train trains the whole model; frugal tune has methods");
  if (!plan.output.empty()) prepare_output(values.training, plan.output);
  nn::LoadedModel model = load_model(context, is_new ? new_model(context, values, plan) : given);
  const TrainingData data = load_training_data(context, plan, model, true);
  if (values.training.show > 0) return show_examples(model, data.train, values.training.show);
  TrainingJob job{model,
                  data,
                  train::all_parameters(*model.model),
                  trainer_options(values.training, plan, context, is_new ? kNewRate : kContinuedRate),
                  {},
                  {},
                  {},
                  {},
                  {},
                  false,
                  "model"};
  job.fingerprint = {{"method", "train"}};
  job.files = whole_model_files(context, model);
  run_training(context, plan, job);
}

}  // namespace

void add_train(CLI::App& app, Context& context) {
  const auto values = std::make_shared<TrainValues>();
  Verb verb = new_verb(app, context, "train", "Pre-train a model on texts: a new one by its shape, or one that is there",
                       [&context, values] { run(context, *values); });
  verb.text("model,-m,--model,--hf-repo", values->model, "Path or hub name of a model to go on with; without it a new one is made")
      .text("--tokenizer", values->tokenizer, "Folder with the new model's tokenizer");
  const std::map<std::string, std::string> short_names = {{"hidden_size", ",--width"},
                                                          {"num_hidden_layers", ",--layers"},
                                                          {"num_attention_heads", ",--heads"},
                                                          {"num_key_value_heads", ",--kv-heads"},
                                                          {"max_position_embeddings", ",--context"}};
  for (const OptionSpec& spec : train::shape_options()) {
    std::string dashed = spec.name;
    std::replace(dashed.begin(), dashed.end(), '_', '-');
    const auto found = short_names.find(spec.name);
    verb.each(
        "--" + dashed + ",--" + spec.name + (found == short_names.end() ? "" : found->second),
        [values, name = spec.name](const std::string& text) { values->shape[name] = text; }, fmt::format("{} [{}]", spec.help, spec.fallback));
  }
  add_training_flags(verb, values->training);
}

}  // namespace frugal::cli
