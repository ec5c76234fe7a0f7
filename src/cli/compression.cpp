#include "cli/compression.h"

#include <filesystem>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "kernels/cpu/isa.h"

namespace frugal::cli {
namespace {

Json manifest_of(const nn::LoadedModel& loaded, const std::string& base_hash, const std::vector<chain::ParsedStep>& steps) {
  // A chain that goes on where an earlier one stopped keeps the first base.
  Json manifest = loaded.manifest.is_object() ? loaded.manifest : Json::object();
  if (!manifest.contains("chain")) {
    manifest["base"] = loaded.name;
    manifest["base_hash"] = base_hash;
    manifest["chain"] = Json::array();
  }
  manifest["frugal"] = kVersion;
  manifest["original_parameters"] = loaded.model->original_parameters;
  for (const chain::ParsedStep& step : steps) manifest["chain"].push_back({{"step", step.text()}, {"leaf", step.row->leaf}});
  return manifest;
}

void append_step_rows(const Context& context, const nn::LoadedModel& loaded, const std::string& base_hash, const CompressionJob& job,
                      const std::vector<chain::StepResult>& results) {
  chain::LedgerRow row;
  row.kind = chain::RowKind::step;
  row.name = job.name;
  row.model = loaded.name;
  row.base_hash = base_hash;
  row.machine = chain::this_machine(std::string(kernels::to_string(kernels::active_isa())), static_cast<int>(context.threads));
  row.version = kVersion;
  row.parameters = static_cast<int64_t>(loaded.model->original_parameters);
  for (size_t i = 0; i < results.size(); ++i) {
    row.chain.push_back(results[i].text);
    row.leaves.push_back(job.steps[i].row->leaf);
    row.step_seconds = results[i].seconds;
    row.step_peak_rss_bytes = static_cast<int64_t>(results[i].peak_rss_bytes);
    chain::Ledger(job.ledger).append(row);
  }
}

uint64_t size_on_disk(const std::string& path) {
  namespace fs = std::filesystem;
  if (!fs::is_directory(path)) return fs::file_size(path);
  uint64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(path)) {
    if (entry.path().extension() == ".safetensors") bytes += entry.file_size();
  }
  return bytes;
}

}  // namespace

nn::SaveFormat parse_save_format(const std::string& text) {
  if (text == "auto") return nn::SaveFormat::automatic;
  if (text == "hf") return nn::SaveFormat::huggingface;
  if (text == "gguf") return nn::SaveFormat::gguf;
  if (text == "frugal") return nn::SaveFormat::frugal;
  fail(ErrorKind::invalid_input, "format must be auto, hf, gguf or frugal, is \"{}\"", printable(text));
}

bool needs_calibration(const std::vector<chain::ParsedStep>& steps) {
  for (const chain::ParsedStep& step : steps) {
    const chain::Step& function = step.row->function;
    if (function.scope == chain::StepScope::model || (function.needs && function.needs(step.options) != chain::kNeedsNothing)) return true;
  }
  return false;
}

namespace {

// One sequence is enough to see what a chain leaves behind.
constexpr int64_t kRehearsalTokens = 64;

// The chain on the first block alone, of a copy that shares the weights: what the target format has no words for is known
// after seconds, not after the work. Steps that remove blocks are left out; they leave nothing new behind.
void rehearse(const Context& context, const nn::LoadedModel& loaded, const CompressionJob& job) {
  const nn::SaveFormat format = nn::target_format(job.format, job.output);
  if (job.expand || format == nn::SaveFormat::automatic || format == nn::SaveFormat::frugal) return;
  nn::LoadedModel copy = loaded;
  copy.model = std::make_shared<nn::Model>(*loaded.model);
  copy.model->blocks.resize(1);
  std::vector<chain::ParsedStep> steps;
  for (const chain::ParsedStep& step : job.steps) {
    if (step.row->function.effect != chain::StepEffect::structure) steps.push_back(step);
  }
  chain::CalibrationOptions calibration = job.calibration;
  calibration.sequences = calibration.sample_sequences = 1;
  calibration.sequence_length = std::min(calibration.sequence_length, kRehearsalTokens);
  chain::Workbench bench(copy, job.text, calibration, context.method_seed());
  chain::run_chain(bench, steps);
  if (const std::string reason = context.loader.cannot_express(*copy.model, format); !reason.empty()) {
    fail(ErrorKind::unsupported, "{}: {}; nothing was done (--format frugal holds every result, --expand writes plain floats instead)", job.output, reason);
  }
}

}  // namespace

CompressionResult compress(const Context& context, nn::LoadedModel& loaded, const std::string& base_hash, const CompressionJob& job) {
  const Stopwatch watch;
  require_free_output(job.output, job.overwrite, "config.json");
  if (!job.ledger.empty()) require_appendable(job.ledger);
  rehearse(context, loaded, job);
  chain::Workbench bench(loaded, job.text, job.calibration, context.method_seed());
  bench.cache = job.cache;
  CompressionResult result;
  result.steps = chain::run_chain(bench, job.steps);
  context.loader.save(loaded, job.output,
                      {.format = job.format,
                       .float_format = job.float_format,
                       .manifest = manifest_of(loaded, base_hash, job.steps),
                       .expand = job.expand,
                       .overwrite = job.overwrite});
  if (!job.ledger.empty()) append_step_rows(context, loaded, base_hash, job, result.steps);
  result.bytes = size_on_disk(job.output);
  result.seconds = watch.seconds();
  return result;
}

}  // namespace frugal::cli
