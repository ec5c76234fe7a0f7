// What `tune` and `train` share: their options, from flags and YAML alike, the data, and the run.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/context.h"
#include "cli/ranks.h"
#include "data/dataset.h"
#include "data/order.h"
#include "train/flops.h"
#include "train/language_modeling.h"
#include "train/layer_sampler.h"
#include "train/trainer.h"

namespace frugal::cli {

// Options of a run, named as Axolotl and transformers name them: the keys of --config and, with dashes or underscores, the flags.
const std::vector<OptionSpec>& training_options();

struct TrainingValues {
  std::string config, output, method;
  std::string default_method;                // what `method` is when neither flag nor file says it
  std::vector<std::string> data, eval_data;  // paths; a kind after a colon: "rows.jsonl:alpaca"
  std::map<std::string, std::string> flags;  // of training_options() and schedule_options(), as typed
  int64_t show = 0;
  bool resume = false, overwrite = false, allow_changes = false;
};

// Of a new model's shape, with short names beside transformers'; what is typed goes to `given`, as in add_option_flag.
void add_shape_flags(Verb& verb, std::map<std::string, std::string>& given);

// The flags that both verbs have.
void add_training_flags(Verb& verb, TrainingValues& values);

// --some-name and --some_name, perhaps another; what is typed goes to `given`, which must live until the command line is parsed.
void add_option_flag(Verb& verb, const OptionSpec& spec, std::map<std::string, std::string>& given, const std::string& alias = {});

// `values` and the configuration file, flags first; checked. Throws Error{invalid_input} that names file and key, with the nearest known one.
struct TrainingPlan {
  std::string base_model;                    // of the file
  std::string method;                        // "lora:r=16"; empty: the verb has none
  std::map<std::string, std::string> extra;  // the verb's own keys (file only; see `own_keys`)
  std::vector<data::Source> data, eval_data;
  Options run, schedule;
  std::string output;
};
// pretrains: of `train`, which reads texts only.
TrainingPlan training_plan(const TrainingValues& values, bool pretrains, const std::vector<std::string>& own_keys = {});

// Tokenized data: what is trained on and what is held out (eval data, or a part of the first by val_set_size). `concatenate`: texts are cut into
// sequences of one length (pre-training).
struct TrainingData {
  data::Dataset train;
  std::optional<data::Dataset> held_out;
};
TrainingData load_training_data(const Context& context, const TrainingPlan& plan, const nn::LoadedModel& model, bool concatenate);

// The first `count` examples with what is learned marked: coloured on a terminal, in brackets elsewhere.
void show_examples(const nn::LoadedModel& model, const data::Dataset& dataset, int64_t count);

// What the flags say of a folder that is there already.
train::Existing existing_of(const TrainingValues& values);

train::TrainerOptions trainer_options(const TrainingValues& values, const TrainingPlan& plan, const Context& context, double default_rate);

// What is minimized, where it is not what the plan says of itself.
using ObjectiveMaker = std::function<std::unique_ptr<train::Objective>(train::LanguageModelingOptions options)>;

// What is trained, and what becomes of it.
struct TrainingJob {
  const Ranks& ranks;
  nn::LoadedModel& model;
  const TrainingData& data;
  std::vector<train::Parameter> parameters;
  train::TrainerOptions options;
  Json fingerprint;  // of the method
  train::TrainingFlops flops;
  std::string what;                                    // for the summary: "adapter", "model"
  train::CheckpointFiles files = {};                   // of the output, at the end
  bool checkpoints_have_files = false;                 // and of every checkpoint
  std::function<void(uint64_t)> seed_randomness = {};  // see train::LanguageModelingOptions
  std::function<void(bool)> set_training = {};
  std::string optimizer_state = {};  // file with AdamW's state to begin with, or empty
  train::Recompute recompute = {};   // how randomness is kept; `every` is the plan's
  ObjectiveMaker objective = {};
  std::optional<train::LayerSampling> sampling = {};  // some blocks train at a time
};

// The row of the plan's optimizer and its options, checked.
struct OptimizerChoice {
  const MethodRow<train::OptimizerFactory>* row;
  Options options;
};
OptimizerChoice optimizer_of(const TrainingPlan& plan);

// Trains, with the other ranks where there are some, writes the result beside the checkpoints, and prints the summary.
void run_training(const Context& context, const TrainingPlan& plan, const train::RunFolder& folder, TrainingJob& job);

// What `grow` puts beside a model and `train` begins with.
inline constexpr const char* kOptimizerState = "optimizer.safetensors";

// The model as a directory in float32, which transformers reads where it has the architecture.
train::CheckpointFiles whole_model_files(const Context& context, const nn::LoadedModel& model);
// Everything in `from` is now in `folder`; `from` is gone.
void move_files(const std::string& from, const std::string& folder);

// Runs `work`; SIGTERM before the training began is no failure.
void stoppable(const std::function<void()>& work);

}  // namespace frugal::cli
