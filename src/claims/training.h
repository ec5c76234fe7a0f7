// What claims of training measure, with the functions that frugal train, tune, distill and grow call: models that were trained by one side of a
// claim, each once however many claims want it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "claims/side.h"
#include "data/dataset.h"
#include "nn/loader.h"
#include "train/language_modeling.h"

namespace frugal::claims {

struct Texts {
  std::string learned, held_out;  // paths
};

struct TrainingSetting {
  std::function<std::string(const std::string& model)> path;         // of the model that a claim names: "T"
  std::function<nn::LoadedModel(const std::string& path)> load;      // from there
  std::function<Texts(const std::string& name)> texts;               // TrainingBudget::text
  std::function<void(const std::string& line)> note = [](auto&) {};  // told of each run
  std::string work;                                                  // a folder for what is thrown away
  uint64_t seed = 0;                                                 // of the first run
};

struct Trained {
  std::shared_ptr<nn::Model> model;
  std::unique_ptr<tune::Adapter> adapter;  // in the model, or null
  double loss = 0;                         // held out
  double flops = 0;                        // of everything that was learned, growth and what came before it too
  struct Point {
    double flops = 0, loss = 0;
  };
  std::vector<Point> curve;  // held-out losses, the last one at the end; on the way with Run::curve
  double cpu_seconds = 0;    // of this process, in the training itself
};

// What is trained how: equal ones are the same run.
struct Run {
  std::string model;  // "T"
  std::vector<std::string> words;
  TrainingBudget budget;
  double rate = 0;
  int seed = 0;        // counted from the setting's
  bool curve = false;  // evaluates thirty times on the way
  std::string key() const;
};

class Trainings {
 public:
  explicit Trainings(TrainingSetting setting) : setting_(std::move(setting)) {}

  const Trained& of(const Run& run);
  // The same, made anew, for those who change it.
  Trained train(const Run& run);

  // What would be trained, before its first step.
  struct Start {
    std::shared_ptr<nn::Model> model;
    std::unique_ptr<tune::Adapter> adapter;
    std::vector<train::Parameter> parameters;
    std::vector<Trained::Point> curve;
    double flops = 0;  // that it took
  };
  Start start(const Run& run, const Side& side);

  struct Data {
    data::Dataset learned, held_out;
  };
  const Data& data(const Run& run);
  const nn::LoadedModel& model(const std::string& name);
  uint64_t seed_of(const Run& run) const { return setting_.seed + static_cast<uint64_t>(run.seed); }

 private:
  Options shape_of(const Run& run, const Side& side);
  std::shared_ptr<nn::Model> new_model(const Run& run, const Side& side);
  std::vector<std::shared_ptr<const nn::Model>> teachers(const Run& run);
  data::Dataset answers(const Run& run, const Side& side);
  std::string rows_of(const std::string& text);

  TrainingSetting setting_;
  std::map<std::string, nn::LoadedModel> models_;
  std::map<std::string, Data> data_;
  std::map<std::string, Trained> trained_;
};

}  // namespace frugal::claims
