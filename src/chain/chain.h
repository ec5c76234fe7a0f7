// Running a chain of weight steps over a model: the layer loop, the shared calibration, the checks of order.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/options.h"
#include "chain/calibration.h"
#include "chain/step.h"
#include "nn/loader.h"

namespace frugal::chain {

// "id:key=value,...", or "id" where nothing was given: equal methods have equal texts.
std::string canonical_text(const std::string& id, const Options& options);

struct ParsedStep {
  const StepRow* row = nullptr;
  Options options;
  std::string text() const;  // canonical: "gptq:bits=3,group=64"
};

// "gptq:bits=3,group=64" -> row and checked options. Throws Error{invalid_input} with the nearest name.
ParsedStep parse_chain_step(const StepTable& table, const std::string& text);
std::vector<ParsedStep> parse_chain(const StepTable& table, const std::vector<std::string>& texts);

// Throws Error{invalid_input} with the reason when the order makes no sense: nothing changes weights after they were
// quantized; no factors from masked weights (the mask would be lost) or from factors.
void check_order(const std::vector<ParsedStep>& chain);

// Statistics of a model's own activations, per block, kept for chains that begin alike. Thread-compatible.
class CalibrationCache;

// The model under work and what steps may use. One per chain.
class Workbench {
 public:
  // Of `text` the first sequences * sequence_length tokens are kept.
  Workbench(nn::LoadedModel& loaded, CalibrationText text, CalibrationOptions options, uint64_t seed);

  nn::LoadedModel& loaded;
  nn::Model& model;
  CalibrationText text;  // empty: the chain needs none, or run_chain throws
  CalibrationOptions calibration;
  Rng rng;
  std::vector<ParsedStep> done;             // steps applied so far
  std::shared_ptr<CalibrationCache> cache;  // may be null
  std::shared_ptr<nn::Model> original;      // the model as the chain found it, sharing its weights; null unless a step reads it
  bool rehearsal = false;                   // only the form of the result counts: steps need not search or train
};

struct StepResult {
  std::string text;  // canonical step
  double seconds = 0;
  uint64_t peak_rss_bytes = 0;  // of the process, while the step ran (reset before it where the kernel allows)
};

// Applies the steps. Consecutive block-scope steps share one walk over the blocks. Throws Error, Interrupted.
std::vector<StepResult> run_chain(Workbench& bench, const std::vector<ParsedStep>& chain);

}  // namespace frugal::chain
