// What `tune` and `distill` share: what of a model is trained, an adapter beside its weights or the weights themselves.
#pragma once

#include "cli/training.h"
#include "tune/adapter.h"
#include "tune/lisa.h"

namespace frugal::cli {

inline constexpr const char* kWholeModel = "full";

// For the help of the flag that names one.
std::string ways_to_tune();

// "lora:r=16", or "full"; checked. Throws Error{invalid_input}.
struct WayToTune {
  const tune::AdapterRow* row = nullptr;                 // null: the whole model
  const tune::LayerSamplingRow* sampling_row = nullptr;  // of which some blocks at a time; null: all
  Options options;
};
WayToTune way_to_tune(const std::string& text);

struct Tuning {
  const Ranks& ranks;
  const Context& context;
  const TrainingValues& values;
  const TrainingPlan& plan;
  const WayToTune& way;
  std::string base;  // as the user named the model
  nn::LoadedModel& model;
  const TrainingData& data;
  ObjectiveMaker objective = {};      // empty: the plan's
  Json fingerprint = Json::object();  // beside the way's
};

// Trains into the folder, which is the plan's output, and prints the summary.
void tune_model(const Tuning& tuning, const train::RunFolder& folder);

}  // namespace frugal::cli
