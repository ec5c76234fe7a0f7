#include "train/chain_training.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "base/error.h"
#include "base/progress.h"
#include "train/continuation.h"
#include "train/logit_distillation.h"
#include "train/optimizer.h"
#include "train/trainer.h"

namespace frugal::train {
namespace {

using at::Tensor;

constexpr int64_t kGreedyTokens = 4;      // of a generated sequence, after its first (arXiv 2305.17888, section 2.1: "the first 3 to 5")
constexpr int64_t kSequencesAtOnce = 16;  // that are generated
constexpr double kWarmup = 0.03;

void append(data::Dataset& dataset, std::span<const int32_t> tokens) {
  if (tokens.size() < 2) return;
  dataset.tokens.insert(dataset.tokens.end(), tokens.begin(), tokens.end());
  dataset.trained.push_back(0);
  dataset.trained.resize(dataset.tokens.size(), 1);
  dataset.offsets.push_back(dataset.tokens.size());
}

data::Dataset calibration_text(const chain::Workbench& bench) {
  data::Dataset dataset;
  const std::span<const int32_t> tokens = bench.text.tokens;
  const auto length = static_cast<size_t>(bench.calibration.sequence_length);
  for (size_t begin = 0; begin < tokens.size(); begin += length) append(dataset, tokens.subspan(begin, std::min(length, tokens.size() - begin)));
  return dataset;
}

// As LLM-QAT generates (arXiv 2305.17888, section 2.1): any first token, a few of the likeliest ones after it, then samples until the end of the text.
data::Dataset generated_text(chain::Workbench& bench, const nn::Model& model) {
  data::Dataset dataset;
  const int64_t sequences = bench.calibration.sequences;
  ContinuationOptions options;
  options.longest = bench.calibration.sequence_length;
  options.end_ids = bench.loaded.end_ids;
  Progress progress("generate", sequences);
  for (int64_t done = 0; done < sequences; done += kSequencesAtOnce) {
    std::vector<std::vector<int32_t>> rows;
    for (int64_t i = done; i < std::min(sequences, done + kSequencesAtOnce); ++i) {
      rows.push_back({static_cast<int32_t>(bench.rng.below(static_cast<uint64_t>(model.spec.vocab)))});
    }
    for (const bool greedy : {true, false}) {
      options.temperature = greedy ? 0 : 1;
      options.max_new_tokens = greedy ? kGreedyTokens : options.longest;
      options.seed = bench.rng.next();
      const std::vector<std::span<const int32_t>> prompts(rows.begin(), rows.end());
      const auto more = continuations(model, prompts, options);
      for (size_t i = 0; i < rows.size(); ++i) rows[i].insert(rows[i].end(), more[i].begin(), more[i].end());
    }
    for (const auto& row : rows) append(dataset, row);
    progress.step(std::ssize(rows));
  }
  return dataset;
}

TrainerOptions trainer_options(const Options& options, uint64_t seed) {
  TrainerOptions trainer;
  trainer.max_steps = options.integer("max_steps");
  trainer.num_epochs = options.number("num_epochs");
  trainer.gradient_accumulation_steps = options.integer("gradient_accumulation_steps");
  trainer.learning_rate = options.number("learning_rate");
  trainer.schedule = Options("schedule", schedule_options(), {{"lr_scheduler_type", "cosine"}, {"warmup_ratio", fmt::format("{}", kWarmup)}});
  trainer.seed = seed;
  return trainer;
}

// Weights that do not train, as floats while others do.
class Expanded {
 public:
  explicit Expanded(nn::Linear& head, nn::Model* teacher) : head_(head), teacher_(teacher) { set(nn::Execution::expanded); }
  ~Expanded() { set(nn::Execution::stored); }
  Expanded(const Expanded&) = delete;
  Expanded& operator=(const Expanded&) = delete;

 private:
  void set(nn::Execution execution) {
    if (teacher_) teacher_->set_execution(execution);
    head_.set_execution(execution);
  }
  nn::Linear& head_;
  nn::Model* teacher_;
};

}  // namespace

std::vector<OptionSpec> chain_training_options(double learning_rate, double distillation) {
  return {integer_option("max_steps", 0, 0, 1 << 30, "steps of training; 0: num_epochs decides"),
          number_option("num_epochs", 1, 0.001, 1e6, "passes over the calibration text"),
          number_option("learning_rate", learning_rate, 0, 10, "the highest of AdamW, on a cosine"),
          integer_option("micro_batch_size", 1, 1, 1 << 16, "sequences of a forward pass"),
          integer_option("gradient_accumulation_steps", 1, 1, 1 << 16, "micro-batches of a step"),
          boolean_option("gradient_checkpointing", false, "keep the inputs of the blocks only, and compute them again"),
          choice_option("data", "calibration", {"calibration", "generated"}, "the chain's calibration text, or as many sequences that the model writes itself"),
          number_option("distillation", distillation, 0, 1, "weight of the teacher's distributions against the labels")};
}

unsigned chain_training_needs(const Options& options) { return options.text("data") == "generated" ? chain::kNeedsNothing : chain::kNeedsText; }

bool chain_training_has_teacher(const Options& options) { return options.number("distillation") > 0 || options.text("data") == "generated"; }

TrainedBlocks train_blocks(nn::Model& model, const FormOf& form) {
  TrainedBlocks trained;
  const auto train_norm = [&](const std::string& name, nn::Norm& norm) {
    norm.weight = norm.weight.detach().to(at::kFloat).clone().requires_grad_();
    trained.norms.push_back({name + ".weight", norm.weight, 1, false});
  };
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    nn::Block& block = model.blocks[i];
    for (const auto& [name, norm] : block.norms()) train_norm(fmt::format("model.layers.{}.{}", i, name), *norm);
    for (chain::Matrix& matrix : chain::BlockContext(block, static_cast<int>(i), static_cast<int>(model.blocks.size())).matrices()) {
      matrix.replace(std::make_shared<TrainedKind>(matrix.out_features(), matrix.in_features(), form(block, matrix)));
      trained.matrices.push_back(std::move(matrix));
    }
  }
  if (model.final_norm.weight.defined()) train_norm("model.norm", model.final_norm);
  return trained;
}

void train_in_chain(chain::Workbench& bench, const Options& options, const std::vector<Parameter>& parameters, nn::Model* teacher, double token_temperature) {
  const double distillation = options.number("distillation");
  FRUGAL_ASSERT(teacher || !chain_training_has_teacher(options));
  const Expanded expanded(bench.model.head, teacher);
  const data::Dataset dataset = options.text("data") == "generated" ? generated_text(bench, *teacher) : calibration_text(bench);
  if (dataset.size() == 0) fail(ErrorKind::invalid_input, "there is no text to train on: --calib names one");
  LanguageModelingOptions modeling;
  modeling.batches = {bench.rng.next(), static_cast<size_t>(options.integer("micro_batch_size")), static_cast<size_t>(bench.calibration.sequence_length),
                      false};
  modeling.recompute.every = options.boolean("gradient_checkpointing") ? 1 : 0;
  const at::AutoGradMode grad(true);
  std::unique_ptr<Objective> objective;
  if (distillation > 0)
    objective = std::make_unique<LogitDistillation>(bench.model, *teacher, dataset, std::move(modeling), distillation, token_temperature);
  else
    objective = std::make_unique<LanguageModeling>(bench.model, dataset, nullptr, std::move(modeling));
  const auto& adamw = optimizer_table().at("adamw");
  const auto optimizer = adamw.function(parameters, Options(adamw.id, adamw.options, {{"weight_decay", "0"}}));
  if (train(*objective, parameters, *optimizer, trainer_options(options, bench.rng.next())).stopped) throw Interrupted{};
}

void end_training(nn::Model& model) {
  for (nn::Block& block : model.blocks) {
    for (const auto& [name, norm] : block.norms()) norm->weight = norm->weight.detach();
  }
  if (model.final_norm.weight.defined()) model.final_norm.weight = model.final_norm.weight.detach();
}

}  // namespace frugal::train
