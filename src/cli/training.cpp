#include "cli/training.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/process.h"
#include "base/progress.h"
#include "chain/chain.h"
#include "cli/parallel_run.h"
#include "cli/resources.h"
#include "cli/terminal.h"
#include "cli/yaml.h"
#include "io/checkpoint.h"
#include "io/sha256.h"
#include "kernels/cpu/machine.h"
#include "text/tokenizer.h"
#include "train/checkpoint.h"
#include "train/new_model.h"
#include "train/pipeline.h"
#include "train/preference.h"
#include "train/text_model.h"

namespace frugal::cli {
namespace fs = std::filesystem;
namespace {

const OptionSpec* find_spec(const std::vector<OptionSpec>& specs, std::string_view name) {
  const auto found = std::find_if(specs.begin(), specs.end(), [&](const OptionSpec& spec) { return spec.name == name; });
  return found == specs.end() ? nullptr : &*found;
}

RawOptions given_of(const std::map<std::string, std::string>& given, const std::vector<OptionSpec>& specs) {
  RawOptions raw;
  for (const auto& [name, value] : given) {
    if (find_spec(specs, name)) raw.emplace_back(name, value);
  }
  return raw;
}

// "path" or "path:kind".
data::Source source_of(const std::string& text, const Options& run) {
  data::Source source;
  source.path = text;
  if (const size_t colon = text.rfind(':'); colon != std::string::npos && !fs::exists(text)) {
    source.kind = data::row_kind(text.substr(colon + 1));
    source.path = text.substr(0, colon);
  }
  source.mask.train_on_inputs = run.boolean("train_on_inputs");
  source.mask.train_on_eos = data::train_on_eos(run.text("train_on_eos"));
  return source;
}

std::string joined_names(const YAML::Node& node, const std::string& where) {
  if (node.IsScalar()) return node.Scalar();
  if (!node.IsSequence() || node.size() == 0) fail(ErrorKind::invalid_input, "{}: must be a name or a list of names", where);
  std::string names;
  for (const auto& name : node) names += (names.empty() ? "" : "+") + scalar(name, where);
  return names;
}

// Axolotl's: {path, type, field_messages, message_property_mappings: {role, content}, roles_to_train, train_on_eos}.
data::Source source_of(const YAML::Node& node, const std::string& where, const Options& run) {
  if (node.IsScalar()) return source_of(node.Scalar(), run);
  if (!node.IsMap()) fail(ErrorKind::invalid_input, "{}: must be a path or a map with one", where);
  if (!node["path"]) fail(ErrorKind::invalid_input, "{}: has no path", where);
  data::Source source = source_of(scalar(node["path"], where), run);
  for (const auto& pair : node) {
    const auto key = pair.first.as<std::string>();
    const std::string at = where + "." + key;
    if (key == "path") continue;
    if (key == "type") {
      const std::string type = scalar(pair.second, at);
      source.kind = type == "chat_template" ? data::RowKind::chat : type == "completion" ? data::RowKind::text : data::row_kind(type);
    } else if (key == "roles_to_train") {
      if (!pair.second.IsSequence() || pair.second.size() == 0) fail(ErrorKind::invalid_input, "{}: must be a list of roles", at);
      source.mask.roles_to_train.clear();
      for (const auto& role : pair.second) source.mask.roles_to_train.insert(scalar(role, at));
    } else if (key == "train_on_eos") {
      source.mask.train_on_eos = data::train_on_eos(scalar(pair.second, at));
    } else if (key == "message_property_mappings") {
      if (!pair.second.IsMap()) fail(ErrorKind::invalid_input, "{}: must be a map", at);
      for (const auto& mapping : pair.second) {
        const std::string property = key + "." + mapping.first.as<std::string>();
        data::field_of(source.fields, property) = scalar(mapping.second, at);
      }
    } else {
      data::field_of(source.fields, key) = scalar(pair.second, at);
    }
  }
  return source;
}

// What the keys of a LoRA in Axolotl's words are in ours.
struct AdapterKeys {
  std::string adapter;  // "lora"
  std::vector<std::pair<std::string, std::string>> options;
  bool dora = false, plus = false;

  bool take(const std::string& key, const YAML::Node& node, const std::string& where) {
    if (key == "adapter") {
      adapter = scalar(node, where);
    } else if (key == "lora_r") {
      options.emplace_back("r", scalar(node, where));
    } else if (key == "lora_alpha") {
      options.emplace_back("alpha", scalar(node, where));
    } else if (key == "lora_dropout") {
      options.emplace_back("dropout", scalar(node, where));
    } else if (key == "lora_target_modules") {
      options.emplace_back("target", joined_names(node, where));
    } else if (key == "lora_target_linear") {
      if (truth(node, where)) options.emplace_back("target", "all-linear");
    } else if (key == "peft_use_rslora") {
      options.emplace_back("rslora", truth(node, where) ? "true" : "false");
    } else if (key == "peft_use_dora") {
      dora = truth(node, where);
    } else if (key == "loraplus_lr_ratio") {
      plus = true;
      options.emplace_back("ratio", scalar(node, where));
    } else {
      return false;
    }
    return true;
  }
  // "lora:r=16,..."; empty where the file says nothing of adapters.
  std::string method(const std::string& path) const {
    if (adapter.empty() && (dora || plus || !options.empty())) fail(ErrorKind::invalid_input, "{}: has options of a LoRA, but no adapter", path);
    if ((dora || plus) && adapter != "lora") fail(ErrorKind::invalid_input, "{}: peft_use_dora and loraplus_lr_ratio go with adapter: lora", path);
    if (dora && plus) fail(ErrorKind::invalid_input, "{}: peft_use_dora and loraplus_lr_ratio do not go together", path);
    std::string text = dora ? "dora" : plus ? "lora-plus" : adapter;
    for (size_t k = 0; k < options.size(); ++k) text += fmt::format("{}{}={}", k == 0 ? ":" : ",", options[k].first, options[k].second);
    return text;
  }
};

constexpr const char* kAdapterKeys[] = {"adapter",         "lora_r",        "lora_alpha",       "lora_dropout", "lora_target_modules", "lora_target_linear",
                                        "peft_use_rslora", "peft_use_dora", "loraplus_lr_ratio"};
constexpr const char* kFileKeys[] = {"base_model", "method", "datasets", "test_datasets", "output_dir"};

// YAML has more words for true than our options.
std::string option_text(const std::string& name, const YAML::Node& node, const std::string& where) {
  const OptionSpec* spec = find_spec(training_options(), name);
  if (name == "bf16" && node.IsScalar() && node.Scalar() == "auto") return "true";  // Axolotl: where the machine can, which is everywhere
  if (spec && spec->type == OptionType::boolean) return truth(node, where) ? "true" : "false";
  return scalar(node, where);
}

// transformers' names of optimizers that are rows of ours.
std::string optimizer_row(const std::string& name) {
  if (name == "adamw_torch" || name == "adamw_torch_fused" || name == "adamw_hf") return "adamw";
  if (name == "adamw_bnb_8bit" || name == "adamw_8bit" || name == "paged_adamw_8bit") return "adam8bit";
  return name;
}

struct ConfigFile {
  std::map<std::string, std::string> options;
  YAML::Node datasets, test_datasets;
  std::string base_model, method, output;
  std::map<std::string, std::string> extra;
};

ConfigFile parse_config(const YAML::Node& root, const std::string& path, const std::vector<std::string>& own_keys) {
  ConfigFile file;
  std::vector<std::string> known = own_keys;
  for (const auto& specs : {training_options(), train::schedule_options()}) {
    for (const OptionSpec& spec : specs) known.push_back(spec.name);
  }
  known.insert(known.end(), std::begin(kAdapterKeys), std::end(kAdapterKeys));
  known.insert(known.end(), std::begin(kFileKeys), std::end(kFileKeys));
  known.emplace_back("lr_scheduler");
  AdapterKeys adapter;
  check_keys(root, path, known);
  for (const auto& pair : root) {
    const auto key = pair.first.as<std::string>();
    const std::string where = path + ": " + key;
    if (pair.second.IsNull()) continue;
    if (adapter.take(key, pair.second, where)) continue;
    if (key == "datasets") {
      file.datasets = pair.second;
    } else if (key == "test_datasets") {
      file.test_datasets = pair.second;
    } else if (key == "base_model") {
      file.base_model = scalar(pair.second, where);
    } else if (key == "method") {
      file.method = scalar(pair.second, where);
    } else if (key == "output_dir") {
      file.output = scalar(pair.second, where);
    } else if (std::find(own_keys.begin(), own_keys.end(), key) != own_keys.end()) {
      file.extra[key] = scalar(pair.second, where);
    } else {
      const std::string name = key == "lr_scheduler" ? "lr_scheduler_type" : key;
      if (!file.options.emplace(name, option_text(name, pair.second, where)).second)
        fail(ErrorKind::invalid_input, "{}: lr_scheduler and lr_scheduler_type are one key", path);
    }
  }
  const std::string adapter_method = adapter.method(path);
  if (!adapter_method.empty() && !file.method.empty()) fail(ErrorKind::invalid_input, "{}: has both method and adapter", path);
  if (!adapter_method.empty()) file.method = adapter_method;
  return file;
}

ConfigFile read_config(const std::string& path, const std::vector<std::string>& own_keys) {
  ConfigFile file;
  if (!path.empty()) read_yaml(path, [&](const YAML::Node& root) { file = parse_config(root, path, own_keys); });
  return file;
}

std::unique_ptr<train::Objective> objective_of(const TrainingPlan& plan, const TrainingJob& job, const ParallelRun& parallel,
                                               train::LanguageModelingOptions options) {
  const bool pairs = job.data.train.pairs;
  if (plan.run.text("rl") == "dpo") {
    return std::make_unique<train::Preference>(*job.model.model, job.data.train, std::move(options),
                                               train::PreferenceOptions{plan.run.number("rl_beta"), plan.run.number("dpo_label_smoothing")});
  }
  if (pairs) fail(ErrorKind::invalid_input, "rows with a chosen and a rejected answer are learned with --rl dpo");
  const data::Dataset* const held_out = job.data.held_out ? &*job.data.held_out : nullptr;
  if (parallel.model && parallel.model->is_staged())
    return std::make_unique<train::PipelinedLanguageModeling>(*job.model.model, *parallel.model, job.data.train, held_out, std::move(options));
  return std::make_unique<train::LanguageModeling>(*job.model.model, job.data.train, held_out, std::move(options));
}

data::Dataset load_part(const nn::LoadedModel& model, const std::vector<data::Source>& sources, const data::LoadOptions& options, const char* what) {
  data::Dataset dataset = data::load_dataset(sources, options, train::text_model_of(model));
  print_note(fmt::format("{}: {}", what, data::to_string(dataset.report)));
  return dataset;
}

}  // namespace

const std::vector<OptionSpec>& training_options() {
  static const std::vector<OptionSpec> options = {
      integer_option("sequence_len", 1024, 2, 1 << 20, "longest example in tokens"),
      boolean_option("sample_packing", false, "fill sequences of sequence_len with whole examples, each of which sees itself only"),
      choice_option("over_length", "drop", {"drop", "truncate"}, "what happens to longer examples"),
      boolean_option("skip_bad", false, "go on after rows that cannot be used, and count them"),
      boolean_option("train_on_inputs", false, "learn all tokens, not the assistant's alone"),
      choice_option("train_on_eos", "turn", {"turn", "all", "last", "none"}, "which ends of turns are learned"),
      number_option("val_set_size", 0, 0, 1e9, "held out of the data: a share below 1, else a number of examples"),
      integer_option("micro_batch_size", 4, 1, 1 << 20, "examples (packed: sequences) that are computed at once"),
      integer_option("gradient_accumulation_steps", 1, 1, 1 << 20, "micro-batches of a step, of all processes together"),
      number_option("num_epochs", 3, 1e-6, 1e6, "times through the data"),
      integer_option("max_steps", 0, 0, int64_t{1} << 40, "steps in place of epochs (0: epochs)"),
      number_option("learning_rate", 0, 0, 1e3, "highest learning rate (0: the method's)"),
      text_option("optimizer", "adamw", "row of the optimizers, with options: adamw:beta2=0.95"),
      number_option("weight_decay", 0, 0, 100, "of matrices, in place of the optimizer's own"),
      number_option("max_grad_norm", 1, 0, 1e9, "longest gradient (0: not clipped)"),
      choice_option("strategy", "ddp", strategy_names(), "of several processes (torchrun, mpirun): what each holds of optimizer state and gradients"),
      integer_option("tensor_parallel_size", 1, 1, 1 << 10, "processes that share the matrices of a model, and its vocabulary"),
      integer_option("pipeline_parallel_size", 1, 1, 1 << 10, "stages of processes that share the blocks of a model"),
      boolean_option("bf16", false, "activations in bfloat16; weights, gradients, optimizer and sums stay float32 (arXiv 1905.12322)"),
      boolean_option("fp16", false, "activations in float16, the loss scaled as it needs (arXiv 1710.03740)"),
      boolean_option("gradient_checkpointing", false, "keep the blocks' inputs only, and compute them again in backward"),
      integer_option("recompute_every", 1, 1, 1 << 20, "with gradient_checkpointing: only each of so many blocks"),
      boolean_option("load_in_4bit", false, "the base model in 4 bits (floats become NF4, what is quantized stays), decoded at each use: less memory, slower"),
      choice_option("bnb_4bit_quant_type", "nf4", {"nf4"}, "with load_in_4bit: the format of what were floats"),
      boolean_option("bnb_4bit_use_double_quant", true, "with load_in_4bit: the scales are quantized too"),
      integer_option("logging_steps", 1, 1, 1 << 30, "steps between lines of the log"),
      integer_option("save_steps", 500, 0, int64_t{1} << 40, "steps between checkpoints (0: at the end)"),
      integer_option("save_total_limit", 2, 0, 1 << 20, "checkpoints that are kept (0: all)"),
      integer_option("eval_steps", 0, 0, int64_t{1} << 40, "steps between evaluations (0: at the end)"),
      choice_option("rl", "none", {"none", "dpo"}, "dpo: learn from rows with a chosen and a rejected answer (arXiv 2305.18290)"),
      number_option("rl_beta", 0.1, 1e-6, 100, "dpo: how closely the model stays to where it was"),
      number_option("dpo_label_smoothing", 0, 0, 0.5, "dpo: share of pairs that are the wrong way round"),
      number_option("spike_factor", 10, 0, 1e9, "a loss so many times its running mean is reported (0: never)"),
      choice_option("spike_policy", "report", {"report", "skip"}, "whether such a step is taken"),
  };
  return options;
}

void add_training_flags(Verb& verb, TrainingValues& values) {
  verb.text("--config", values.config, "YAML file with these options as keys (Axolotl's names); flags come first")
      .texts("--data", values.data, "Training data: .jsonl, .json or a text file; a kind after a colon (:chat, :alpaca, :sharegpt, :text); repeatable")
      .texts("--eval-data", values.eval_data, "Held-out data, as --data; repeatable")
      .text("-o,--output,--output-dir", values.output, "Folder for checkpoints, logs and the result")
      .integer("--show", values.show, 0, 1 << 20, "Print so many examples with what is learned marked, and end")
      .flag("--resume,--resume-from-checkpoint", values.resume, "Go on from the newest checkpoint of the output that is whole")
      .flag("--overwrite", values.overwrite, "Remove the checkpoints that the output has and begin anew")
      .flag("--allow-changes", values.allow_changes, "Resume although data or options differ from what they were");
  for (const auto* specs : {&training_options(), &train::schedule_options()}) {
    for (const OptionSpec& spec : *specs) add_option_flag(verb, spec, values.flags);
  }
}

void add_shape_flags(Verb& verb, std::map<std::string, std::string>& given) {
  const std::map<std::string, std::string> short_names = {{"hidden_size", "--width"},
                                                          {"num_hidden_layers", "--layers"},
                                                          {"num_attention_heads", "--heads"},
                                                          {"num_key_value_heads", "--kv-heads"},
                                                          {"max_position_embeddings", "--context"}};
  for (const OptionSpec& spec : train::shape_options()) {
    const auto found = short_names.find(spec.name);
    add_option_flag(verb, spec, given, found == short_names.end() ? "" : found->second);
  }
}

void add_option_flag(Verb& verb, const OptionSpec& spec, std::map<std::string, std::string>& given, const std::string& alias) {
  std::string dashed = spec.name;
  std::replace(dashed.begin(), dashed.end(), '_', '-');
  std::string names = "--" + dashed;
  if (dashed != spec.name) names += ",--" + spec.name;
  if (!alias.empty()) names += "," + alias;
  std::string help = spec.help;
  if (!spec.choices.empty()) help += fmt::format(": {}", fmt::join(spec.choices, ", "));
  verb.each(
      names, [&given, name = spec.name](const std::string& text) { given[name] = text; }, fmt::format("{} [{}]", help, spec.fallback));
}

namespace {

// An option that would change nothing is a mistake, not to be passed over.
void refuse_idle_options(const TrainingValues& values, const TrainingPlan& plan, bool pretrains) {
  const Options& run = plan.run;
  const auto refuse = [&](const char* name, bool idle, const char* why) {
    if (run.given(name) && idle) fail(ErrorKind::invalid_input, "{}: changes nothing {}", name, why);
  };
  refuse("recompute_every", !run.boolean("gradient_checkpointing"), "without gradient_checkpointing");
  if (run.boolean("bf16") && run.boolean("fp16")) fail(ErrorKind::invalid_input, "bf16 and fp16: activations have one type, give one");
  const bool dpo = run.text("rl") == "dpo";
  refuse("rl_beta", !dpo, "without rl: dpo");
  refuse("dpo_label_smoothing", !dpo, "without rl: dpo");
  const bool evaluates = !plan.eval_data.empty() || run.number("val_set_size") > 0;
  refuse("eval_steps", !evaluates, "without held-out data");
  refuse("spike_policy", run.number("spike_factor") == 0, "where spike_factor is 0");
  refuse("load_in_4bit", pretrains || plan.method == "full" || plan.method.starts_with("lisa"), "where the whole model trains: that takes floats");
  const bool four_bits = run.boolean("load_in_4bit") || (!plan.method.empty() && parse_step(plan.method).id == "qlora");
  for (const char* name : {"bnb_4bit_quant_type", "bnb_4bit_use_double_quant"}) refuse(name, !four_bits, "without load_in_4bit or qlora");
  for (const char* name : {"over_length", "train_on_inputs", "train_on_eos"}) refuse(name, pretrains, "of texts, which are cut and learned whole");
  if (pretrains && dpo) fail(ErrorKind::invalid_input, "rl: frugal tune learns from preferences");
  if (dpo && optimizer_of(plan).row->id == "sophia")
    fail(ErrorKind::unsupported, "rl: preferences have no labels that sophia could draw: choose another optimizer");
  const bool no_gradient = optimizer_of(plan).row->id == "mezo";
  if (dpo && no_gradient) fail(ErrorKind::unsupported, "rl: preferences are learned by their gradient, which mezo does without: choose another optimizer");
  for (const char* name : {"max_grad_norm", "gradient_checkpointing"}) refuse(name, no_gradient, "for mezo, which takes no gradient");
  if (dpo && evaluates) fail(ErrorKind::unsupported, "rl: held-out pairs are not evaluated yet");
  if (values.resume && values.overwrite) fail(ErrorKind::invalid_input, "--resume goes on with what is there, --overwrite removes it: give one");
}

}  // namespace

TrainingPlan training_plan(const TrainingValues& values, bool pretrains, const std::vector<std::string>& own_keys) {
  const ConfigFile file = read_config(values.config, own_keys);
  std::map<std::string, std::string> given = file.options;
  for (const auto& [name, value] : values.flags) given[name] = value;
  TrainingPlan plan;
  const std::string owner = values.config.empty() ? "training" : values.config;
  plan.run = Options(owner, training_options(), given_of(given, training_options()));
  plan.schedule = Options(owner, train::schedule_options(), given_of(given, train::schedule_options()));
  plan.base_model = file.base_model;
  plan.method = !values.method.empty() ? values.method : !file.method.empty() ? file.method : values.default_method;
  plan.extra = file.extra;
  plan.output = values.output.empty() ? file.output : values.output;
  const auto sources = [&](const std::vector<std::string>& flags, const YAML::Node& nodes, const char* key) {
    std::vector<data::Source> all;
    for (const std::string& text : flags) all.push_back(source_of(text, plan.run));
    if (!flags.empty() || !nodes.IsDefined() || nodes.IsNull()) return all;
    if (!nodes.IsSequence()) fail(ErrorKind::invalid_input, "{}: {}: must be a list", values.config, key);
    for (size_t i = 0; i < nodes.size(); ++i) all.push_back(source_of(nodes[i], fmt::format("{}: {}[{}]", values.config, key, i), plan.run));
    return all;
  };
  plan.data = sources(values.data, file.datasets, "datasets");
  plan.eval_data = sources(values.eval_data, file.test_datasets, "test_datasets");
  if (plan.data.empty()) fail(ErrorKind::invalid_input, "--data names the {} to learn from", pretrains ? "texts" : "rows");
  if (plan.output.empty() && values.show == 0) fail(ErrorKind::invalid_input, "-o names the folder that the result goes to");
  if (!plan.eval_data.empty() && plan.run.number("val_set_size") > 0)
    fail(ErrorKind::invalid_input, "held-out data is either given or a part of the data (val_set_size), not both");
  refuse_idle_options(values, plan, pretrains);
  train::schedule_factor(plan.schedule, 0, std::max<int64_t>(1, plan.run.integer("max_steps")));  // what it refuses, it refuses now
  optimizer_of(plan);
  return plan;
}

TrainingData load_training_data(const Context& context, const TrainingPlan& plan, const nn::LoadedModel& model, bool concatenate) {
  const data::LoadOptions options{static_cast<size_t>(plan.run.integer("sequence_len")), data::over_length(plan.run.text("over_length")),
                                  plan.run.boolean("skip_bad"), concatenate};
  TrainingData result{load_part(model, plan.data, options, "training data"), {}};
  if (!plan.eval_data.empty()) result.held_out = load_part(model, plan.eval_data, options, "held-out data");
  if (const double size = plan.run.number("val_set_size"); size > 0) {
    const data::Split split = data::split(result.train, size, context.method_seed());
    if (split.training.empty()) fail(ErrorKind::invalid_input, "val_set_size {} leaves nothing of {} examples to train on", size, result.train.size());
    result.held_out = result.train.subset(split.validation);
    result.train = result.train.subset(split.training);
  }
  return result;
}

void show_examples(const nn::LoadedModel& model, const data::Dataset& dataset, int64_t count) {
  const bool colours = ::isatty(STDOUT_FILENO);
  const char *begin = colours ? "\033[1;32m" : "[[", *end = colours ? "\033[0m" : "]]";
  for (size_t i = 0; i < std::min(static_cast<size_t>(count), dataset.size()); ++i) {
    const data::Example example = dataset.example(i);
    const auto learned = std::count(example.trained.begin(), example.trained.end(), 1);
    std::string text = fmt::format("-- example {}: {} tokens, {} learned\n", i, example.tokens.size(), learned);
    for (size_t from = 0; from < example.tokens.size();) {
      size_t to = from;
      while (to < example.tokens.size() && example.trained[to] == example.trained[from]) ++to;
      std::string part;
      for (size_t t = from; t < to; ++t) part += model.tokenizer->piece(example.tokens[t]);
      text += example.trained[from] ? begin + part + end : part;
      from = to;
    }
    print(text + "\n");
  }
}

train::Existing existing_of(const TrainingValues& values) {
  return values.resume ? train::Existing::resume : values.overwrite ? train::Existing::replace : train::Existing::refuse;
}

void move_files(const std::string& from, const std::string& folder) {
  for (const auto& entry : fs::directory_iterator(from)) fs::rename(entry.path(), fs::path(folder) / entry.path().filename());
  fs::remove(from);
}

void stoppable(const std::function<void()>& work) {
  try {
    work();
  } catch (const Interrupted&) {
    if (exit_code_after_stop() != 128 + SIGTERM) throw;
    print_note("stopped before the training began");
  }
}

train::TrainerOptions trainer_options(const TrainingValues& values, const TrainingPlan& plan, const Context& context, double default_rate) {
  const Options& run = plan.run;
  train::TrainerOptions options;
  options.max_steps = run.integer("max_steps");
  options.num_epochs = run.number("num_epochs");
  options.gradient_accumulation_steps = run.integer("gradient_accumulation_steps");
  options.learning_rate = run.number("learning_rate") > 0 ? run.number("learning_rate") : default_rate;
  options.schedule = plan.schedule;
  options.max_grad_norm = run.number("max_grad_norm");
  options.seed = context.method_seed();
  options.logging_steps = run.integer("logging_steps");
  options.save_steps = run.integer("save_steps");
  options.save_total_limit = run.integer("save_total_limit");
  options.eval_steps = run.integer("eval_steps");
  options.spike_factor = run.number("spike_factor");
  options.spikes = run.text("spike_policy") == "skip" ? train::SpikePolicy::skip : train::SpikePolicy::report;
  options.allow_changes = values.allow_changes;
  return options;
}

train::CheckpointFiles whole_model_files(const Context& context, const nn::LoadedModel& model) {
  return [&context, &model](const std::string& folder) {
    nn::SaveOptions options;
    options.float_format = "F32";
    context.loader.save(model, folder + "/.model", options);
    move_files(folder + "/.model", folder);
  };
}

OptimizerChoice optimizer_of(const TrainingPlan& plan) {
  StepText text = parse_step(plan.run.text("optimizer"));
  text.id = optimizer_row(text.id);
  const auto& row = train::optimizer_table().at(text.id);
  if (plan.run.given("weight_decay")) {
    const bool typed = std::any_of(text.options.begin(), text.options.end(), [](const auto& option) { return option.first == "weight_decay"; });
    if (typed) fail(ErrorKind::invalid_input, "weight_decay is given twice: by itself and with the optimizer");
    if (!find_spec(row.options, "weight_decay")) fail(ErrorKind::invalid_input, "weight_decay: the optimizer {} has none", row.id);
    text.options.emplace_back("weight_decay", fmt::format("{}", plan.run.number("weight_decay")));
  }
  return {&row, Options(row.id, row.options, text.options)};
}

namespace {

// Hashing has read all of the weights, most of which have another form by now. Nothing writes to the mapped ones while others train.
void release_files(const nn::LoadedModel& model) {
  for (const auto& file : std::static_pointer_cast<const io::Checkpoint>(model.source)->files) release_mapped(file->bytes());
}

void begin_with_state(TrainingJob& job, const MethodRow<train::OptimizerFactory>& row, train::Optimizer& optimizer, const train::DataParallel* ranks) {
  if (row.id != "adamw") {
    log_warning("{}: is AdamW's state, with which {} cannot begin: it is left out", job.optimizer_state, row.id);
    return;
  }
  if (ranks)
    ranks->load_state(optimizer, ranks->leads() ? train::read_tensors(job.optimizer_state) : train::TensorMap(), job.optimizer_state);
  else
    train::load_state(optimizer, train::read_tensors(job.optimizer_state), job.optimizer_state);
  job.fingerprint["optimizer_state"] = io::sha256_hex(MappedFile::open(job.optimizer_state)->bytes());
  log_info("the optimizer begins with the state in {}", job.optimizer_state);
}

train::LanguageModelingOptions modeling_options(const Context& context, const TrainingPlan& plan, const TrainingJob& job, const ParallelRun& parallel,
                                                at::ScalarType activations) {
  train::LanguageModelingOptions options;
  options.batches = {context.method_seed(), static_cast<size_t>(plan.run.integer("micro_batch_size")), static_cast<size_t>(plan.run.integer("sequence_len")),
                     plan.run.boolean("sample_packing")};
  options.recompute = job.recompute;
  options.recompute.every = plan.run.boolean("gradient_checkpointing") ? plan.run.integer("recompute_every") : 0;
  if (train::DataParallel* const ranks = parallel.ranks.get(); ranks && ranks->shards_parameters()) {
    options.recompute.every = 1;
    options.recompute.weights = [ranks](int64_t block, bool begins) { begins ? ranks->come(block) : ranks->go(block); };
  }
  if (parallel.model) options.recompute.inputs = parallel.model->input_tap();
  options.seed_randomness = job.seed_randomness;
  options.set_training = job.set_training;
  options.flops = job.flops;
  options.activations = activations;
  return options;
}

}  // namespace

void run_training(const Context& context, const TrainingPlan& plan, const train::RunFolder& folder, TrainingJob& job) {
  const OptimizerChoice choice = optimizer_of(plan);
  uint64_t trainable = 0;
  for (const train::Parameter& parameter : job.parameters) trainable += static_cast<uint64_t>(parameter.tensor.numel());
  const ParallelRun parallel = parallel_run(plan, job, choice.row->id);
  train::DataParallel* const ranks = parallel.ranks.get();
  const std::unique_ptr<train::Optimizer> optimizer = job.sampling
                                                          ? std::make_unique<train::LayerSampler>(job.parameters, *job.sampling, *choice.row, choice.options)
                                                          : choice.row->function(ranks ? ranks->owned() : job.parameters, choice.options);
  if (!job.optimizer_state.empty()) begin_with_state(job, *choice.row, *optimizer, ranks);
  job.fingerprint["optimizer"] = chain::canonical_text(choice.row->id, choice.options);
  job.fingerprint["model"] = weights_hash(job.model);
  release_files(job.model);
  job.fingerprint["schedule"] = plan.schedule.canonical();
  job.fingerprint["threads"] = context.threads;
  const at::ScalarType activations = plan.run.boolean("bf16") ? at::kBFloat16 : plan.run.boolean("fp16") ? at::kHalf : at::kFloat;
  if (activations != at::kFloat) job.fingerprint["activations"] = at::toString(activations);
  job.options.scale_loss = activations == at::kHalf && !optimizer->wants_losses();
  job.options.peak_flops = 2 * kernels::measure_float_peak();  // a multiply-add is two
  train::LanguageModelingOptions modeling = modeling_options(context, plan, job, parallel, activations);
  const std::unique_ptr<train::Objective> objective =
      job.objective ? job.objective(std::move(modeling)) : objective_of(plan, job, parallel, std::move(modeling));
  const train::TrainResult result =
      train::train(*objective, job.parameters, *optimizer, folder, job.options, job.fingerprint, job.checkpoints_have_files ? job.files : nullptr, ranks);
  if (result.stopped) {
    print_note(fmt::format("stopped after step {} of {}; --resume goes on", result.steps, result.total_steps));
    if (ranks) job.ranks.group().leave();
    if (stop_requested() && exit_code_after_stop() != 128 + SIGTERM) throw Interrupted{};
  } else if (job.ranks.leads()) {
    const std::string made = plan.output + "/.result";
    fs::remove_all(made);
    fs::create_directories(made);
    job.files(made);
    folder.take_result(made);
  }
  Json per_rank = Json::array();
  if (ranks && !result.stopped) {
    per_rank = job.ranks.say({{"peak_rss_bytes", peak_rss_bytes()}, {"optimizer_bytes", optimizer->state_bytes()}});
    job.ranks.group().leave();
  }
  if (context.json) {
    Json summary = {{"output", plan.output},
                    {"train_loss_first", result.loss_first},
                    {"train_loss_last", result.loss_last},
                    {"steps", result.steps},
                    {"total_steps", result.total_steps},
                    {"tokens", result.tokens},
                    {"skipped_steps", result.skipped},
                    {"seconds", result.seconds},
                    {"peak_rss_bytes", peak_rss_bytes()},
                    {"trainable_parameters", trainable},
                    {"optimizer_bytes", optimizer->state_bytes()},
                    {"stopped", result.stopped}};
    summary["eval_loss"] = result.has_eval ? Json(result.eval_loss) : Json();
    if (ranks) {
      summary["strategy"] = plan.run.text("strategy");
      summary["ranks"] = per_rank;
      for (const char* size : {"tensor_parallel_size", "pipeline_parallel_size"}) summary[size] = plan.run.integer(size);
    }
    print_json(summary);
    return;
  }
  if (result.stopped) return;
  std::string line = fmt::format("{}: {} of {} trained parameters, {} steps, loss {:.4f} -> {:.4f}", plan.output, job.what, trainable, result.steps,
                                 result.loss_first, result.loss_last);
  if (result.has_eval) line += fmt::format(", held out {:.4f}", result.eval_loss);
  print(line + fmt::format("; {} tokens in {:.1f} s, peak memory {:.0f} MB\n", result.tokens, result.seconds, static_cast<double>(peak_rss_bytes()) / 1e6));
}

}  // namespace frugal::cli
