#include "cli/compression.h"

#include <filesystem>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "chain/manifest.h"
#include "io/sha256.h"
#include "kernels/cpu/isa.h"

namespace frugal::cli {
namespace {

// What was calibrated on: "calibration.txt:1f3a5b7c 16x512 seed 0", or empty.
std::string calibration_of(const Context& context, const CompressionJob& job) {
  if (!needs_calibration(job.steps)) return "";
  const std::string hash = io::sha256_hex(std::as_bytes(std::span(job.text.tokens)));
  return fmt::format("{}:{} {}x{} seed {}", job.text.name, hash.substr(0, 16), job.calibration.sequences, job.calibration.sequence_length,
                     context.method_seed());
}

// A chain that goes on where an earlier one stopped keeps the first base.
chain::Manifest origin_of(const nn::LoadedModel& loaded, const std::string& weights_hash) {
  return chain::read_manifest(loaded).value_or(chain::Manifest{loaded.name, weights_hash, {}, {}, ""});
}

Json manifest_json(const nn::LoadedModel& loaded, const chain::Manifest& manifest) {
  Json json = loaded.manifest.is_object() ? loaded.manifest : Json::object();
  json.update(chain::to_json(manifest));
  json["frugal"] = kVersion;
  json["original_parameters"] = loaded.model->original_parameters;
  return json;
}

void append_step_rows(const Context& context, const nn::LoadedModel& loaded, const chain::Manifest& manifest, const CompressionJob& job,
                      const std::vector<chain::StepResult>& results) {
  chain::LedgerRow row;
  chain::describe_origin(manifest, row);
  row.kind = chain::RowKind::step;
  row.name = job.name;
  row.machine = chain::this_machine(std::string(kernels::to_string(kernels::active_isa())), static_cast<int>(context.threads));
  row.version = kVersion;
  row.parameters = static_cast<int64_t>(loaded.model->original_parameters);
  for (size_t i = 0; i < results.size(); ++i) {
    const auto length = static_cast<int64_t>(manifest.chain.size() - results.size() + i + 1);
    row.chain.assign(manifest.chain.begin(), manifest.chain.begin() + length);
    row.leaves.assign(manifest.leaves.begin(), manifest.leaves.begin() + length);
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
    if (function.needs ? function.needs(step.options) != chain::kNeedsNothing : function.scope == chain::StepScope::model) return true;
  }
  return false;
}

namespace {

// One sequence is enough to see what a chain leaves behind.
constexpr int64_t kRehearsalTokens = 64;

// The chain on the first block alone, of a copy that shares the weights: what the target format has no words for is known
// after seconds, not after the work. Steps that remove blocks are left out; all that they
// can leave behind is an order of window sizes (Gemma 3) that GGUF has no words for, which is said when it is written.
void rehearse(const Context& context, const nn::LoadedModel& loaded, const CompressionJob& job, const std::vector<chain::ParsedStep>& done) {
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
  bench.rehearsal = true;
  bench.done = done;
  chain::run_chain(bench, steps);
  if (const std::string reason = context.loader.cannot_express(*copy.model, format); !reason.empty()) {
    fail(ErrorKind::unsupported, "{}: {}; nothing was done (--format frugal holds every result, --expand writes plain floats instead)", job.output, reason);
  }
}

}  // namespace

CompressionResult compress(const Context& context, nn::LoadedModel& loaded, const std::string& weights_hash, const CompressionJob& job) {
  const Stopwatch watch;
  require_free_output(job.output, job.overwrite, "config.json");
  if (!job.ledger.empty()) require_appendable(job.ledger);
  chain::Manifest manifest = origin_of(loaded, weights_hash);
  const std::vector<chain::ParsedStep> done = chain::steps_of(manifest, context.steps);
  rehearse(context, loaded, job, done);
  chain::Workbench bench(loaded, job.text, job.calibration, context.method_seed());
  bench.done = done;
  bench.cache = job.cache;
  CompressionResult result;
  result.steps = chain::run_chain(bench, job.steps);
  chain::extend(manifest, job.steps, calibration_of(context, job));
  context.loader.save(
      loaded, job.output,
      {.format = job.format, .float_format = job.float_format, .manifest = manifest_json(loaded, manifest), .expand = job.expand, .overwrite = job.overwrite});
  if (!job.ledger.empty()) append_step_rows(context, loaded, manifest, job, result.steps);
  result.bytes = size_on_disk(job.output);
  result.seconds = watch.seconds();
  return result;
}

}  // namespace frugal::cli
