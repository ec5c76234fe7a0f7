#include "cli/resources.h"

#include <ATen/Parallel.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/error.h"
#include "base/team.h"
#include "io/checkpoint.h"
#include "io/hub.h"
#include "io/sha256.h"
#include "text/tokenizer.h"

namespace frugal::cli {
namespace fs = std::filesystem;
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::string read_text(const std::string& path, const char* kind) { return read_text_file(text_path(path, kind), kMaxTextBytes); }

const text::Tokenizer& tokenizer_of(const nn::LoadedModel& model) {
  if (!model.tokenizer) fail(ErrorKind::invalid_input, "{}: the checkpoint has no tokenizer", model.name);
  return *model.tokenizer;
}

std::string text_name(const std::string& path, const char* kind) { return path.empty() ? fmt::format("default-{}", kind) : fs::path(path).filename().string(); }

}  // namespace

std::string cache_directory() {
  if (const std::string own = environment("FRUGAL_CACHE"); !own.empty()) return own;
  if (const std::string shared = environment("XDG_CACHE_HOME"); !shared.empty()) return shared + "/frugal";
  return environment("HOME") + "/.cache/frugal";
}

std::string text_path(const std::string& path, const std::string& kind) {
  if (!path.empty()) return path;
  const std::string fallback = (fs::path(cache_directory()) / "text" / kind).string() + ".txt";
  if (!fs::exists(fallback)) fail(ErrorKind::io, "{}: no default text; run scripts/default-text or name a file", fallback);
  return fallback;
}

std::string resolve_model_path(const Context& context, const std::string& spec) {
  io::HubOptions options = io::hub_options_from_environment();
  options.offline = options.offline || context.offline;
  options.revision = context.revision;
  options.file = context.hub_file;
  if (!context.hub_token.empty()) options.token = context.hub_token;
  return io::resolve_model(spec, options);
}

nn::LoadedModel load_model(const Context& context, const std::string& spec, nn::Execution execution) {
  return context.loader.load(resolve_model_path(context, spec), execution);
}

void use_threads(Context& context, int64_t count) {
  context.threads = count > 0 ? count : static_cast<int64_t>(std::max(1u, std::thread::hardware_concurrency()));
  set_team_size(static_cast<int>(context.threads));
  at::set_num_threads(static_cast<int>(context.threads));
}

std::string weights_hash(const nn::LoadedModel& model) { return weights_hash(*std::static_pointer_cast<const io::Checkpoint>(model.source)); }

std::string weights_hash(const io::Checkpoint& checkpoint) {
  io::Sha256 hash;
  for (const auto& file : checkpoint.files) hash.update(file->bytes());
  return hash.hex();
}

eval::EvalText load_eval_text(const nn::LoadedModel& model, const std::string& path) {
  const text::Tokenizer& tokenizer = tokenizer_of(model);
  eval::EvalText text;
  text.name = text_name(path, "evaluation");
  text.tokens = tokenizer.encode(read_text(path, "evaluation"));
  text.hash = io::sha256_hex(std::as_bytes(std::span(text.tokens)));
  if (tokenizer.special().add_bos) text.bos = tokenizer.special().bos;
  return text;
}

chain::CalibrationText load_calibration_text(const nn::LoadedModel& model, const std::string& path) {
  chain::CalibrationText text;
  text.name = text_name(path, "calibration");
  text.tokens = tokenizer_of(model).encode(read_text(path, "calibration"));
  return text;
}

}  // namespace frugal::cli
