#include "claims/training.h"

#include <fmt/ranges.h>

#include <ctime>
#include <filesystem>
#include <limits>
#include <sstream>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "chain/chain.h"
#include "distill/distillation.h"
#include "distill/teacher_rows.h"
#include "train/full_parameters.h"
#include "train/new_model.h"
#include "train/run_log.h"
#include "train/text_model.h"
#include "train/trainer.h"

namespace frugal::claims {
namespace fs = std::filesystem;
namespace {

constexpr double kPlainRate = 2e-3;  // of the training that both sides begin with: model T's own (scripts/train-model-t)
constexpr size_t kHeldOut = 64;      // sequences that a loss is taken on
constexpr int64_t kPoints = 30;      // of a curve
constexpr int64_t kChecks = 5;       // of the held-out loss, for an objective that goes by it
constexpr size_t kShortestRow = 24;  // words of a paragraph that becomes a row
constexpr size_t kMaxTextBytes = size_t{1} << 28;

data::Dataset first_of(const data::Dataset& dataset, size_t count) {
  std::vector<uint64_t> ids;
  for (uint64_t id = 0; id < std::min(dataset.size(), count); ++id) ids.push_back(id);
  return dataset.subset(ids);
}

}  // namespace

std::string Run::key() const {
  std::vector<std::string> unusual;  // parts, so that runs are equal whichever way they are written
  for (const std::string& word : words) {
    if (word != "full" && word != "adamw") unusual.push_back(word);
  }
  return fmt::format("{} {}: {} steps {} of {} x {}, {} blocks of {} after {} and {}, {} rows {} peers {}, rate {}, seed {}, curve {}", model,
                     words.empty() ? "as it is" : "trained", fmt::join(unusual, " "), budget.steps, budget.batch_size, budget.sequence_len, budget.new_blocks,
                     budget.new_width, budget.shared_steps, budget.steps_before_growth, budget.text, budget.rows, budget.peers_teach, rate, seed, curve);
}

const nn::LoadedModel& Trainings::model(const std::string& name) {
  if (const auto found = models_.find(name); found != models_.end()) return found->second;
  nn::LoadedModel loaded = setting_.load(setting_.path(name));
  loaded.model->set_execution(nn::Execution::expanded);
  return models_[name] = std::move(loaded);
}

// A file of rows of conversations made of a text's paragraphs.
std::string Trainings::rows_of(const std::string& text) {
  std::istringstream paragraphs(read_text_file(text, kMaxTextBytes));
  std::string lines;
  for (std::string paragraph; std::getline(paragraphs, paragraph);) {
    std::vector<std::string> words;
    std::istringstream stream(paragraph);
    for (std::string word; stream >> word;) words.push_back(word);
    if (words.size() < kShortestRow) continue;
    const auto middle = words.begin() + static_cast<std::ptrdiff_t>(words.size() / 2);
    lines += Json{{"messages",
                   {{{"role", "user"}, {"content", fmt::format("{}", fmt::join(words.begin(), middle, " "))}},
                    {{"role", "assistant"}, {"content", fmt::format(" {}", fmt::join(middle, words.end(), " "))}}}}}
                 .dump(-1, ' ', false, Json::error_handler_t::replace) +
             "\n";
  }
  if (lines.empty()) fail(ErrorKind::invalid_input, "{}: has no paragraph of {} words to make rows of", text, kShortestRow);
  const std::string path = fmt::format("{}/{}.jsonl", setting_.work, fs::path(text).stem().string());
  write_text_file(path, lines);
  return path;
}

const Trainings::Data& Trainings::data(const Run& run) {
  const std::string key = fmt::format("{} {} {} {}", run.model, run.budget.text, run.budget.rows, run.budget.sequence_len);
  if (const auto found = data_.find(key); found != data_.end()) return found->second;
  const data::TextModel text = train::text_model_of(model(run.model));
  const data::LoadOptions options{static_cast<size_t>(run.budget.sequence_len), data::OverLength::truncate, false, !run.budget.rows};
  const auto read = [&](const std::string& path) {
    data::Source source;
    source.path = run.budget.rows ? rows_of(path) : path;
    source.kind = run.budget.rows ? data::RowKind::chat : data::RowKind::automatic;
    return data::load_dataset({source}, options, text);
  };
  const Texts texts = setting_.texts(run.budget.text);
  return data_[key] = Data{read(texts.learned), first_of(read(texts.held_out), kHeldOut)};
}

// The rows of a run with the teacher's words as their answers.
data::Dataset Trainings::answers(const Run& run, const Side& side) {
  const distill::DistillationOptions method = side.distillation->row->function(side.distillation->options);
  const nn::LoadedModel& teacher = model(run.model);
  data::Source source;
  source.path = rows_of(setting_.texts(run.budget.text).learned);
  source.kind = data::RowKind::chat;
  distill::TeacherRowsOptions options;
  options.answers = {method.max_new_tokens, run.budget.sequence_len, method.sampling_temperature, teacher.end_ids, seed_of(run)};
  options.batch = 32;
  options.clock = &train::training_clock();
  const std::string path = setting_.work + "/teacher.jsonl";
  distill::write_teacher_rows(teacher, {source}, options, path);
  source.path = path;
  return data::load_dataset({source}, {static_cast<size_t>(run.budget.sequence_len), data::OverLength::truncate}, train::text_model_of(teacher));
}

Options Trainings::shape_of(const Run& run, const Side& side) {
  const nn::ModelSpec& spec = model(run.model).model->spec;
  const nn::BlockSpec& block = spec.blocks.front();
  const int64_t width = run.budget.new_width;
  const auto text = [](auto value) { return fmt::format("{}", value); };
  RawOptions shape = {{"hidden_size", text(width > 0 ? width : spec.hidden)},
                      {"num_hidden_layers", text(run.budget.new_blocks)},
                      {"num_attention_heads", text(width > 0 ? width / block.head_dim : block.heads)},
                      {"max_position_embeddings", text(spec.context_length)},
                      {"tie_word_embeddings", spec.tied_embeddings ? "true" : "false"},
                      {"initialization", side.initialization_text}};
  if (width == 0) shape.emplace_back("num_key_value_heads", text(block.kv_heads));
  if (width == 0) shape.emplace_back("intermediate_size", text(block.intermediate));
  for (const auto& [name, value] : side.shape) {
    std::erase_if(shape, [&](const auto& option) { return option.first == name; });
    shape.emplace_back(name, value);
  }
  return Options("model", train::shape_options(), shape);
}

std::shared_ptr<nn::Model> Trainings::new_model(const Run& run, const Side& side) {
  const std::string folder = setting_.work + "/initial";
  fs::remove_all(folder);
  train::write_new_model(folder, shape_of(run, side), setting_.path(run.model), seed_of(run));
  return setting_.load(folder).model;
}

Trainings::Start Trainings::start(const Run& run, const Side& side) {
  const TrainingBudget& budget = run.budget;
  if (side.growth && budget.new_blocks % 2 != 0)
    fail(ErrorKind::invalid_input, "a side that grows needs an even number of new blocks, not {}", budget.new_blocks);
  if (!side.shape.empty() && (budget.new_blocks == 0 || budget.shared_steps > 0 || side.growth))
    fail(ErrorKind::invalid_input, "a side has a shape of its own only where it trains a new model from the start");
  if (side.initialization && (budget.new_blocks == 0 || side.growth || side.adapter || budget.shared_steps > 0))
    fail(ErrorKind::invalid_input, "{}: is of a new model that trains whole from its first step", side.initialization_text);
  if (side.growth && side.adapter) fail(ErrorKind::invalid_input, "a model that grows is trained whole");
  Start start;
  const auto plain = [&](int64_t steps, int64_t blocks, double rate, std::vector<std::string> words) -> const Trained& {
    Run before{run.model, std::move(words), budget, rate, run.seed, run.curve};
    before.budget.steps = steps;
    before.budget.new_blocks = blocks;
    before.budget.shared_steps = before.budget.steps_before_growth = 0;
    before.budget.peers_teach = false;
    return of(before);
  };
  if (budget.new_blocks == 0) {
    start.model = std::make_shared<nn::Model>(*model(run.model).model);
  } else if (side.growth) {
    std::vector<std::string> words;  // the same, but for growth
    for (const std::string& word : run.words) {
      if (parse_step(word).id != side.growth->row->id) words.push_back(word);
    }
    words.emplace_back("full");
    const Trained& small = plain(budget.steps_before_growth, budget.new_blocks / 2, run.rate, std::move(words));
    start.model = side.growth->row->function(*small.model, nullptr, side.growth->options, seed_of(run)).model;
    start.curve = small.curve;
    start.flops = small.flops;
  } else if (budget.shared_steps > 0) {
    start.model = std::make_shared<nn::Model>(*plain(budget.shared_steps, budget.new_blocks, kPlainRate, {"full"}).model);
  } else {
    start.model = new_model(run, side);
  }
  if (side.adapter) {
    start.adapter = side.adapter->row->function(*start.model, side.adapter->options, {.seed = seed_of(run), .tokenizer = model(run.model).tokenizer.get()});
    start.adapter->set_training(true);
    start.parameters = start.adapter->parameters();
  } else if (side.trains) {
    start.parameters = train::all_parameters(*start.model);
    if (side.initialization) train::scale_rates(shape_of(run, side), start.model->spec, side.optimizer->row->id, start.parameters);
  }
  start.model->set_execution(nn::Execution::expanded);
  return start;
}

std::vector<std::shared_ptr<const nn::Model>> Trainings::teachers(const Run& run) {
  if (!run.budget.peers_teach) return {model(run.model).model};
  std::vector<std::shared_ptr<const nn::Model>> peers;
  for (int seed = 0; seed < run.budget.seeds; ++seed) {
    if (seed == run.seed) continue;
    Run peer{run.model, {"full"}, run.budget, run.rate, seed};
    peer.budget.peers_teach = false;
    peers.push_back(of(peer).model);
  }
  return peers;
}

const Trained& Trainings::of(const Run& run) {
  const std::string key = run.key();
  if (const auto found = trained_.find(key); found != trained_.end()) return found->second;
  return trained_[key] = train(run);
}

Trained Trainings::train(const Run& run) {
  const Stopwatch watch;
  const Side side = parse_side(run.words);
  const TrainingBudget& budget = run.budget;
  Start start = this->start(run, side);
  const bool answered = side.distillation && side.distillation->row->function(side.distillation->options).text_only;
  const Data& data = this->data(run);
  const data::Dataset learned = answered ? answers(run, side) : data::Dataset();
  const data::Dataset& dataset = answered ? learned : data.learned;
  train::LanguageModelingOptions options;
  options.batches = {seed_of(run), static_cast<size_t>(budget.batch_size), static_cast<size_t>(budget.sequence_len), false};
  options.flops = side.adapter ? train::training_flops(*start.model, start.parameters) : train::training_flops(*start.model);
  if (start.adapter) {
    options.seed_randomness = [&](uint64_t seed) { start.adapter->seed(seed); };
    options.set_training = [&](bool training) { start.adapter->set_training(training); };
  }
  std::unique_ptr<train::LanguageModeling> objective;
  if (side.distillation && !answered) {
    objective = std::make_unique<distill::Distillation>(*start.model, teachers(run), dataset, &data.held_out, options,
                                                        side.distillation->row->function(side.distillation->options), model(run.model).end_ids);
  } else {
    objective = std::make_unique<train::LanguageModeling>(*start.model, dataset, &data.held_out, options);
  }
  Trained trained{start.model, nullptr, 0, start.flops, start.curve};
  if (!side.trains) {
    trained.loss = objective->evaluate().value();
    return trained;
  }
  const auto optimizer = optimizer_of(side, start.parameters, seed_of(run));
  train::TrainerOptions trainer;
  trainer.max_steps = budget.steps;
  trainer.learning_rate = run.rate;
  trainer.schedule = side.schedule;
  trainer.seed = seed_of(run);
  if (start.adapter) trainer.hook = start.adapter->step_hook();
  if (run.curve || objective->step_hook()) trainer.eval_steps = std::max<int64_t>(1, budget.steps / (run.curve ? kPoints : kChecks));
  const std::string path = setting_.work + "/run";
  fs::remove_all(path);
  {
    const train::RunFolder folder(path, train::Existing::replace);
    const std::clock_t before = std::clock();
    try {
      const train::TrainResult result = train::train(*objective, start.parameters, *optimizer, folder, trainer, {{"claim", run.key()}});
      if (result.stopped) throw Interrupted{};
      trained.loss = result.eval_loss;
    } catch (const train::Diverged& error) {
      setting_.note(fmt::format("{} at rate {:g}, seed {}: {}", fmt::join(run.words, " "), run.rate, seed_of(run), error.what()));
      trained.loss = trained.flops = std::numeric_limits<double>::infinity();
      return trained;
    }
    trained.cpu_seconds = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  }
  const std::vector<train::MicroBatch> batches = objective->epoch(0);
  const double flops = batches.front().flops / static_cast<double>(batches.front().tokens);  // of a token
  for (const train::LogRow& row : train::read_run_log(path + "/trainer_log.jsonl")) {
    if (row.has_eval) trained.curve.push_back({start.flops + flops * static_cast<double>(row.tokens), row.eval_loss});
  }
  trained.flops = trained.curve.back().flops;
  if (start.adapter) start.adapter->set_training(false);
  trained.adapter = std::move(start.adapter);
  setting_.note(fmt::format("{}, {} steps at rate {:g}, seed {}: held-out loss {:.4f} ({:.0f} s)", fmt::join(run.words, " "), budget.steps, run.rate,
                            seed_of(run), trained.loss, watch.seconds()));
  return trained;
}

}  // namespace frugal::claims
