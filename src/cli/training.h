// What `tune` and `train` share: their options, from flags and YAML alike, the data, and the run.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/context.h"
#include "data/dataset.h"
#include "data/order.h"
#include "train/hidden_states.h"
#include "train/trainer.h"

namespace frugal::cli {

// Options of a run, named as Axolotl and transformers name them: the keys of --config and, with dashes or underscores, the flags.
const std::vector<OptionSpec>& training_options();

struct TrainingValues {
  std::string config, output, method;
  std::vector<std::string> data, eval_data;  // paths; a kind after a colon: "rows.jsonl:alpaca"
  std::map<std::string, std::string> flags;  // of training_options() and schedule_options(), as typed
  int64_t show = 0;
  bool resume = false, overwrite = false, allow_changes = false;
};

// The flags that both verbs have.
void add_training_flags(Verb& verb, TrainingValues& values);

// `values` and the configuration file, flags first; checked. Throws Error{invalid_input} that names file and key, with the nearest known one.
struct TrainingPlan {
  std::string base_model;                    // of the file
  std::string method;                        // "lora:r=16"; empty: the verb's default
  std::map<std::string, std::string> extra;  // the verb's own keys (file only; see `own_keys`)
  std::vector<data::Source> data, eval_data;
  Options run, schedule;
  std::string output;
};
TrainingPlan training_plan(const TrainingValues& values, const std::string& default_data_message, const std::vector<std::string>& own_keys = {});

// Tokenized data: what is trained on and what is held out (eval data, or a part of the first by val_set_size). `concatenate`: texts are cut into
// sequences of one length (pre-training).
struct TrainingData {
  data::Dataset train;
  std::optional<data::Dataset> held_out;
};
TrainingData load_training_data(const Context& context, const TrainingPlan& plan, const nn::LoadedModel& model, bool concatenate);

// The first `count` examples with what is learned marked: coloured on a terminal, in brackets elsewhere.
void show_examples(const nn::LoadedModel& model, const data::Dataset& dataset, int64_t count);

// A folder that may be written into: refused when it holds checkpoints, unless the run is resumed or they may be removed.
void prepare_output(const TrainingValues& values, const std::string& output);

train::TrainerOptions trainer_options(const TrainingValues& values, const TrainingPlan& plan, const Context& context, double default_rate);

// Runs it on the model's parameters, writes what `finish` makes beside the checkpoints when it ends, and prints the summary.
struct TrainingJob {
  nn::LoadedModel& model;
  const TrainingData& data;
  std::vector<train::Parameter> parameters;
  train::TrainerOptions options;
  Json fingerprint;                               // of the method
  std::function<void(uint64_t)> seed_randomness;  // see train::LanguageModelingOptions
  std::function<void(bool)> set_training;
  train::Recompute recompute;           // how randomness is kept; `every` is the plan's
  train::CheckpointFiles files;         // of the output, at the end
  bool checkpoints_have_files = false;  // and of every checkpoint
  std::string what;                     // for the summary: "adapter", "model"
};
// The model as a directory that transformers reads, in float32.
train::CheckpointFiles whole_model_files(const Context& context, const nn::LoadedModel& model);
void run_training(const Context& context, const TrainingPlan& plan, TrainingJob& job);

}  // namespace frugal::cli
