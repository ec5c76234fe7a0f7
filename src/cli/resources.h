// What verbs work with: threads, and models and texts by the names that users type.
#pragma once

#include <string>
#include <vector>

#include "chain/calibration.h"
#include "cli/context.h"
#include "eval/perplexity.h"
#include "nn/loader.h"

namespace frugal::io {
struct Checkpoint;
}  // namespace frugal::io

namespace frugal::cli {

// FRUGAL_CACHE, else XDG_CACHE_HOME/frugal, else ~/.cache/frugal: models/ and text/, as scripts/quickstart fills it.
std::string cache_directory();

// A path as it is; "user/repo[:quant]" through the hub cache, downloading what is missing unless --offline.
std::string resolve_model_path(const Context& context, const std::string& spec);
nn::LoadedModel load_model(const Context& context, const std::string& spec, nn::Execution execution = nn::Execution::stored);

// From here on the compute team, torch's as well, has this many threads (0: all cores).
void use_threads(Context& context, int64_t count);

// SHA-256 over the weight files, in hexadecimal.
std::string weights_hash(const nn::LoadedModel& model);
std::string weights_hash(const io::Checkpoint& checkpoint);

// `path`, or where it is empty the default text of that kind: "evaluation". Throws Error{io} that says how to make it.
std::string text_path(const std::string& path, const std::string& kind);

// `path` empty: the default text that scripts/default-text made. Throws Error{io} that says how to make it.
eval::EvalText load_eval_text(const nn::LoadedModel& model, const std::string& path);
chain::CalibrationText load_calibration_text(const nn::LoadedModel& model, const std::string& path);

}  // namespace frugal::cli
