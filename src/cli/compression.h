// Running a chain on a model and writing the result: shared by compress and sweep.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "chain/calibration_cache.h"
#include "chain/chain.h"
#include "chain/ledger.h"
#include "cli/context.h"

namespace frugal::cli {

struct CompressionJob {
  std::vector<chain::ParsedStep> steps;
  std::string output;
  nn::SaveFormat format = nn::SaveFormat::automatic;
  std::string float_format = "F16";
  bool expand = false, overwrite = false;
  std::string ledger;  // "": none
  std::string name;    // label of the ledger rows
  chain::CalibrationText text;
  chain::CalibrationOptions calibration;
  std::shared_ptr<chain::CalibrationCache> cache;  // may be null
};

struct CompressionResult {
  std::vector<chain::StepResult> steps;
  uint64_t bytes = 0;  // of the written weight files
  double seconds = 0;
};

// `loaded` is changed. `weights_hash`: of `loaded`. Says what the target format cannot express before any work.
CompressionResult compress(const Context& context, nn::LoadedModel& loaded, const std::string& weights_hash, const CompressionJob& job);

nn::SaveFormat parse_save_format(const std::string& text);  // "auto", "hf", "gguf", "frugal"
bool needs_calibration(const std::vector<chain::ParsedStep>& steps);

}  // namespace frugal::cli
