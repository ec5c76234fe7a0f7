#include "train/checkpoint.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <memory>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "io/safetensors.h"
#include "io/sha256.h"
#include "nn/tensor_to_write.h"

namespace frugal::train {
namespace fs = std::filesystem;
namespace {

using at::Tensor;

constexpr int64_t kVersion = 1;
constexpr std::string_view kPrefix = "checkpoint-";
constexpr const char* kParameters = "parameters.safetensors";
constexpr const char* kOptimizer = "optimizer.safetensors";
constexpr const char* kState = "trainer_state.json";
constexpr const char* kManifest = "manifest.json";
constexpr size_t kMaxJsonBytes = size_t{256} << 20;

void write_json(const std::string& path, const Json& json) { write_text_file(path, json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n"); }

Json read_json(const std::string& path) { return parse_json(read_text_file(path, kMaxJsonBytes), path); }

// What is hashed need not stay in memory.
std::string hash_of(const std::string& path) {
  constexpr size_t kPart = size_t{8} << 20;
  const auto file = MappedFile::open(path);
  io::Sha256 hash;
  for (size_t begin = 0; begin < file->bytes().size(); begin += kPart) {
    const auto part = file->bytes().subspan(begin, std::min(kPart, file->bytes().size() - begin));
    hash.update(part);
    release_mapped(part);
  }
  return hash.hex();
}

// checkpoint-<step> folders, newest first.
std::vector<std::pair<int64_t, std::string>> checkpoints_in(const std::string& output) {
  std::vector<std::pair<int64_t, std::string>> found;
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(output, code)) {
    const std::string name = entry.path().filename().string();
    int64_t step = 0;
    if (!name.starts_with(kPrefix)) continue;
    const char* end = name.data() + name.size();
    const auto [rest, error] = std::from_chars(name.data() + kPrefix.size(), end, step);
    if (error == std::errc() && rest == end && step >= 0) found.emplace_back(step, entry.path().string());
  }
  std::sort(found.rbegin(), found.rend());
  return found;
}

void require_finite(const TensorMap& tensors) {
  for (const auto& [name, tensor] : tensors) {
    if (tensor.is_floating_point() && !at::isfinite(tensor).all().item<bool>()) {
      fail(ErrorKind::internal, "{} has numbers that are not finite: no checkpoint is written", name);
    }
  }
}

}  // namespace

TensorMap read_tensors(const std::string& path) {
  const auto file = MappedFile::open(path);
  TensorMap tensors;
  for (const TensorView& view : io::read_safetensors(file->bytes(), path).tensors) {
    const std::optional<at::ScalarType> type = nn::scalar_type_of(view.format);
    if (!type) fail(ErrorKind::corrupt_file, "{}: {} is {}, which no checkpoint holds", path, view.name, view.format);
    Tensor values = at::empty(view.shape, at::TensorOptions(*type));
    if (!view.bytes.empty()) std::memcpy(values.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
    tensors[view.name] = values;
  }
  return tensors;
}

void write_tensors(const std::string& path, const TensorMap& tensors) {
  std::vector<io::TensorToWrite> writes;
  for (const auto& [name, tensor] : tensors) writes.push_back(nn::tensor_to_write(name, tensor));
  io::write_safetensors(path, std::move(writes));
}

void write_checkpoint(const std::string& output, const Checkpoint& checkpoint, const std::function<void(const std::string&)>& add) try {
  require_finite(checkpoint.parameters);
  require_finite(checkpoint.optimizer);
  AtomicDirectory directory(fmt::format("{}/{}{}", output, kPrefix, checkpoint.step), true, kManifest);
  const std::string folder = directory.staging() + "/";
  write_tensors(folder + kParameters, checkpoint.parameters);
  write_tensors(folder + kOptimizer, checkpoint.optimizer);
  write_json(folder + kState, checkpoint.state);
  if (add) add(directory.staging());
  Json files = Json::object();
  for (const auto& entry : fs::recursive_directory_iterator(directory.staging())) {
    if (!entry.is_regular_file()) continue;
    files[entry.path().lexically_relative(directory.staging()).string()] = {{"bytes", entry.file_size()}, {"sha256", hash_of(entry.path().string())}};
  }
  write_json(folder + kManifest, {{"format", "frugal checkpoint"}, {"version", kVersion}, {"step", checkpoint.step}, {"files", files}});
  directory.commit();
} catch (const fs::filesystem_error& error) {
  fail(ErrorKind::io, "{}", error.what());
}

Checkpoint read_checkpoint(const std::string& folder) {
  const std::string path = folder + "/" + kManifest;
  const Json manifest = read_json(path);
  const JsonObject top(manifest, path);
  if (top.text("format") != "frugal checkpoint") top.fail_at("format", "must be \"frugal checkpoint\"");
  const int64_t version = top.integer("version", 1, INT64_MAX);
  if (version > kVersion) fail(ErrorKind::unsupported, "{}: format version {}, this frugal reads up to {}", path, version, kVersion);
  Checkpoint checkpoint;
  checkpoint.step = top.integer("step", 0, INT64_MAX);
  const JsonObject files = top.object("files");
  for (const char* needed : {kParameters, kOptimizer, kState}) {
    if (!files.has(needed)) files.fail_at(needed, "is missing");
  }
  for (const auto& [name, entry] : files.json().items()) {
    const fs::path relative(name);
    if (relative.is_absolute() || std::find(relative.begin(), relative.end(), "..") != relative.end()) files.fail_at(name, "leads out of the checkpoint");
    const JsonObject row(entry, path + ": " + printable(name));
    const std::string file = folder + "/" + name;
    std::error_code code;
    const auto size = fs::file_size(file, code);
    if (code) fail(ErrorKind::corrupt_file, "{}: is missing", file);
    if (static_cast<int64_t>(size) != row.integer("bytes", 0, INT64_MAX))
      fail(ErrorKind::corrupt_file, "{}: has {} bytes, not {}", file, size, row.integer("bytes", 0, INT64_MAX));
    if (hash_of(file) != row.text("sha256")) fail(ErrorKind::corrupt_file, "{}: its content is not what was written (SHA-256 differs)", file);
  }
  checkpoint.state = read_json(folder + "/" + kState);
  const int64_t step = JsonObject(checkpoint.state, folder + "/" + kState).integer("global_step", 0, INT64_MAX);
  if (step != checkpoint.step) fail(ErrorKind::corrupt_file, "{}: the manifest is of step {}, the state of step {}", folder, checkpoint.step, step);
  checkpoint.parameters = read_tensors(folder + "/" + kParameters);
  checkpoint.optimizer = read_tensors(folder + "/" + kOptimizer);
  return checkpoint;
}

std::optional<Checkpoint> newest_checkpoint(const std::string& output) {
  const auto found = checkpoints_in(output);
  std::vector<std::pair<std::string, std::string>> bad;  // folder, what is wrong
  for (const auto& [step, folder] : found) {
    try {
      Checkpoint checkpoint = read_checkpoint(folder);
      if (checkpoint.step != step) fail(ErrorKind::corrupt_file, "{}: holds step {}", folder, checkpoint.step);
      for (const auto& [other, problem] : bad) {
        const std::string aside = other + ".unusable";
        log_warning("a checkpoint cannot be used, an earlier one is taken; it is now {}: {}", aside, problem);
        std::error_code code;
        fs::remove_all(aside, code);
        fs::rename(other, aside, code);
        if (code) fail(ErrorKind::io, "{}: cannot be renamed: {}", other, code.message());
      }
      return checkpoint;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::corrupt_file && error.kind() != ErrorKind::io) throw;
      bad.emplace_back(folder, error.what());
    }
  }
  if (!found.empty()) fail(ErrorKind::corrupt_file, "{}: none of {} checkpoints can be used; the newest: {}", output, found.size(), bad.front().second);
  return {};
}

std::optional<Json> newest_state(const std::string& output) {
  for (const auto& [step, folder] : checkpoints_in(output)) {
    try {
      return read_json(folder + "/" + kState);
    } catch (const Error& error) {  // a run at work may be removing it
      log_warning("a checkpoint is passed over: {}", error.what());
    }
  }
  return {};
}

bool has_checkpoints(const std::string& output) { return !checkpoints_in(output).empty(); }

void remove_checkpoints(const std::string& output) {
  for (const auto& [step, folder] : checkpoints_in(output)) {
    // The manifest first: what a kill leaves of the rest is no checkpoint any more.
    fs::remove(fs::path(folder) / kManifest);
    fs::remove_all(folder);
  }
}

void prune_checkpoints(const std::string& output, int64_t keep) {
  std::error_code code;
  const auto found = checkpoints_in(output);
  for (size_t i = static_cast<size_t>(keep); keep > 0 && i < found.size(); ++i) {
    fs::remove(fs::path(found[i].second) / kManifest, code);
    fs::remove_all(found[i].second, code);
  }
}

}  // namespace frugal::train
