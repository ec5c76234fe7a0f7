#include "io/checkpoint.h"

#include <algorithm>
#include <bit>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "formats/format.h"
#include "io/hyperparameters.h"
#include "io/quantized_layout.h"
#include "io/safetensors.h"

namespace frugal::io {
namespace fs = std::filesystem;
namespace {

constexpr size_t kMaxJsonFile = size_t{64} << 20;
constexpr std::string_view kIndexName = "model.safetensors.index.json";

// Largest power of two that divides a block: what a load of its parts may assume. Files usually give it; a safetensors
// header of odd length, or general.alignment below 8, does not.
uint64_t alignment_of(const TensorView& view) {
  const auto bytes = static_cast<uint64_t>(formats::format_at(view.format).block_bytes);
  return std::min<uint64_t>(8, uint64_t{1} << std::countr_zero(bytes));
}

void add_tensor(Checkpoint& checkpoint, TensorView view, const std::string& file) {
  if (const uint64_t alignment = alignment_of(view); reinterpret_cast<uintptr_t>(view.bytes.data()) % alignment != 0) {
    const auto copy = std::make_shared<std::vector<std::byte>>(view.bytes.begin(), view.bytes.end());
    view.bytes = *copy;
    checkpoint.copies.push_back(copy);
  }
  checkpoint.order.push_back(view.name);
  std::string name = view.name;
  if (!checkpoint.tensors.emplace(std::move(name), std::move(view)).second) {
    fail(ErrorKind::corrupt_file, "{}: tensor {} is in another file too", file, printable(checkpoint.order.back()));
  }
}

void open_gguf_into(Checkpoint& checkpoint) {
  GgufModel model = open_gguf(checkpoint.path);
  checkpoint.container = Container::gguf;
  for (TensorView& view : model.content.tensors) add_tensor(checkpoint, std::move(view), checkpoint.path);
  checkpoint.files = std::move(model.files);
  checkpoint.metadata = std::move(model.content.metadata);
  checkpoint.key_types = std::move(model.content.types);
  if (checkpoint.metadata.has("frugal.chain")) {
    checkpoint.manifest = parse_json(checkpoint.metadata.text("frugal.chain"), checkpoint.path + ": key frugal.chain");
  }
}

// Shard name -> names of the weights that the index expects there.
std::map<std::string, std::vector<std::string>> read_index(const std::string& directory, const std::string& index_path) {
  const Json json = parse_json(read_text_file(index_path, kMaxJsonFile * 2), index_path);
  const JsonObject index(json, index_path);
  const JsonObject weight_map = index.object("weight_map");
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& [weight, shard] : weight_map.json().items()) {
    if (!shard.is_string()) weight_map.fail_at(weight, "must be a file name");
    shards[shard.get<std::string>()].push_back(weight);
  }
  if (shards.empty()) fail(ErrorKind::corrupt_file, "{}: weight_map is empty", index_path);
  return shards;
}

void open_safetensors_into(Checkpoint& checkpoint, std::string_view name, const std::vector<std::string>& expected) {
  if (!name.ends_with(".safetensors")) {
    fail(ErrorKind::unsupported, "{}: weights in \"{}\": only .safetensors files are read (a pickle can run code)", checkpoint.path, printable(name));
  }
  const std::optional<std::string> path = find_in_directory(checkpoint.path, name);
  if (!path) fail(ErrorKind::io, "{}/{}: shard is missing", checkpoint.path, printable(name));
  checkpoint.files.push_back(MappedFile::open(*path));
  SafetensorsFile file = read_safetensors(checkpoint.files.back()->bytes(), *path);
  std::set<std::string_view> present;
  for (const TensorView& view : file.tensors) present.insert(view.name);
  for (const std::string& weight : expected) {
    if (!present.contains(weight)) fail(ErrorKind::corrupt_file, "{}: weight {} is missing, {} says it is here", *path, printable(weight), kIndexName);
  }
  for (TensorView& view : file.tensors) add_tensor(checkpoint, std::move(view), *path);
}

[[noreturn]] void fail_without_weights(const std::string& directory) {
  for (const auto& entry : fs::directory_iterator(directory)) {
    const std::string extension = entry.path().extension().string();
    if (extension == ".bin" || extension == ".pt" || extension == ".pth" || extension == ".pkl") {
      fail(ErrorKind::unsupported, "{}: weights are a pickle ({}), which can run code and is never opened; convert them to safetensors first", directory,
           printable(entry.path().filename().string()));
    }
  }
  fail(ErrorKind::invalid_input, "{}: neither {} nor model.safetensors is here", directory, kIndexName);
}

void open_directory_into(Checkpoint& checkpoint) {
  checkpoint.container = Container::huggingface;
  checkpoint.config = read_json_in_directory(checkpoint.path, "config.json");
  if (checkpoint.config.is_null()) fail(ErrorKind::invalid_input, "{}: not a model directory: config.json is missing", checkpoint.path);
  check_quantization_config(checkpoint.config, checkpoint.path + "/config.json");
  checkpoint.manifest = read_json_in_directory(checkpoint.path, "frugal.json");
  if (const auto index = find_in_directory(checkpoint.path, kIndexName)) {
    for (const auto& [shard, weights] : read_index(checkpoint.path, *index)) open_safetensors_into(checkpoint, shard, weights);
  } else if (find_in_directory(checkpoint.path, "model.safetensors")) {
    open_safetensors_into(checkpoint, "model.safetensors", {});
  } else {
    fail_without_weights(checkpoint.path);
  }
}

bool is_below(const fs::path& path, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
}

}  // namespace

std::string Checkpoint::name() const {
  std::filesystem::path plain(path);
  if (!plain.has_filename()) plain = plain.parent_path();
  return plain.filename().string();
}

const TensorView* Checkpoint::find(std::string_view name) const {
  const auto it = tensors.find(name);
  return it == tensors.end() ? nullptr : &it->second;
}

const TensorView& Checkpoint::at(std::string_view name) const {
  if (const TensorView* view = find(name)) return *view;
  fail(ErrorKind::corrupt_file, "{}: tensor {} is missing ({} are there)", path, printable(name), tensors.size());
}

std::optional<std::string> find_in_directory(const std::string& directory, std::string_view name) {
  if (name.empty() || name == "." || name == ".." || name.size() > 255 || name.find('/') != name.npos || name.find('\0') != name.npos) {
    fail(ErrorKind::corrupt_file, "{}: \"{}\" is not a plain file name; a model may only name files of its own folder", directory, printable(name));
  }
  const fs::path path = fs::path(directory) / name;
  std::error_code code;
  if (!fs::exists(fs::symlink_status(path, code))) return std::nullopt;
  const fs::path target = fs::canonical(path, code);
  if (code) fail(ErrorKind::io, "{}: {}", path.string(), code.message());
  const fs::path folder = fs::canonical(directory, code);
  if (code) fail(ErrorKind::io, "{}: {}", directory, code.message());
  if (is_below(target, folder)) return target.string();
  // models--org--name/snapshots/<commit>/file -> ../../blobs/<etag>, and the same one folder deeper
  for (const fs::path& snapshots : {folder.parent_path(), folder.parent_path().parent_path()}) {
    if (snapshots.filename() == "snapshots" && is_below(target, snapshots.parent_path() / "blobs")) return target.string();
  }
  fail(ErrorKind::corrupt_file, "{}: is a link to {}, outside of the model's folder", path.string(), printable(target.string(), 200));
}

Json read_json_in_directory(const std::string& directory, std::string_view name) {
  const auto path = find_in_directory(directory, name);
  if (!path) return nullptr;
  return parse_json(read_text_file(*path, kMaxJsonFile), fmt::format("{}/{}", directory, name));
}

void copy_text_files(const std::string& source, const std::string& directory) {
  constexpr size_t kMaxTextFile = size_t{256} << 20;
  for (const char* name : kTextFiles) {
    if (const auto path = find_in_directory(source, name)) write_text_file(directory + "/" + name, read_text_file(*path, kMaxTextFile));
  }
}

std::shared_ptr<const Checkpoint> open_checkpoint(const std::string& path) {
  std::error_code code;
  const fs::file_status status = fs::status(path, code);
  if (code || !fs::exists(status)) fail(ErrorKind::io, "{}: {}", path, code ? code.message() : "No such file or directory");
  auto checkpoint = std::make_shared<Checkpoint>();
  checkpoint->path = path;
  if (fs::is_directory(status)) {
    open_directory_into(*checkpoint);
  } else if (path.ends_with(".safetensors")) {
    fail(ErrorKind::invalid_input, "{}: give the model's directory (with config.json), not one file of it", path);
  } else {
    open_gguf_into(*checkpoint);
  }
  for (const auto& file : checkpoint->files) checkpoint->weight_bytes += file->bytes().size();
  check_hyperparameters(*checkpoint);
  return checkpoint;
}

}  // namespace frugal::io
