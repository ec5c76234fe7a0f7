#include <algorithm>
#include <set>

#include "base/checked.h"
#include "base/json.h"
#include "formats/format.h"
#include "io/safetensors.h"

namespace frugal::io {
namespace {

void sort_for_alignment(std::vector<TensorToWrite>& tensors) {
  std::stable_sort(tensors.begin(), tensors.end(), [](const TensorToWrite& a, const TensorToWrite& b) {
    return formats::format_at(a.format).block_bytes > formats::format_at(b.format).block_bytes;
  });
}

std::string header_of(const std::vector<TensorToWrite>& tensors, const SafetensorsMetadata& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::set<std::string_view> names;
  auto& members = header.get_ref<Json::object_t&>();
  uint64_t offset = 0;
  for (const TensorToWrite& tensor : tensors) {
    const std::string_view dtype = formats::format_at(tensor.format).safetensors;
    if (dtype.empty()) fail(ErrorKind::unsupported, "{}: safetensors has no dtype for {}", tensor.name, tensor.format);
    if (!names.insert(tensor.name).second) fail(ErrorKind::internal, "{}: tensor given twice", tensor.name);
    const uint64_t end = checked_add(offset, size_of(tensor), tensor.name);
    // emplace_back: operator[] of an ordered object searches all earlier names.
    using Members = std::vector<Json::object_t::value_type, Json::object_t::Container::allocator_type>;
    static_cast<Members&>(members).emplace_back(tensor.name, Json{{"dtype", dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}});
    offset = end;
  }
  std::string text = header.dump();
  text.resize(checked_round_up<uint64_t>(text.size(), 8, "header"), ' ');
  if (text.size() > kMaxSafetensorsHeader) fail(ErrorKind::unsupported, "a header of {} bytes is more than safetensors allows", text.size());
  return text;
}

}  // namespace

void write_safetensors(const std::string& path, std::vector<TensorToWrite> tensors, const SafetensorsMetadata& metadata) {
  sort_for_alignment(tensors);
  const std::string header = header_of(tensors, metadata);
  const uint64_t size = header.size();
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(&size, 1)));
  file.write(header);
  std::vector<std::byte> scratch;
  for (const TensorToWrite& tensor : tensors) {
    emit(tensor, scratch, [&](std::span<const std::byte> bytes) { file.write(bytes); });
  }
  file.commit();
}

void write_model_tensors(const std::string& directory, std::vector<TensorToWrite> tensors, uint64_t max_shard_bytes) {
  uint64_t total = 0;
  std::vector<std::vector<TensorToWrite>> shards(1);
  uint64_t in_shard = 0;
  for (TensorToWrite& tensor : tensors) {
    const uint64_t size = size_of(tensor);
    if (!shards.back().empty() && size > max_shard_bytes - std::min(in_shard, max_shard_bytes)) {
      shards.emplace_back();
      in_shard = 0;
    }
    in_shard = checked_add(in_shard, size, directory);
    total = checked_add(total, size, directory);
    shards.back().push_back(std::move(tensor));
  }
  if (shards.size() == 1) {
    write_safetensors(directory + "/model.safetensors", std::move(shards[0]));
    return;
  }
  std::map<std::string, std::string> weight_map;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    for (const TensorToWrite& tensor : shards[i]) {
      if (!weight_map.emplace(tensor.name, name).second) fail(ErrorKind::internal, "{}: tensor given twice", tensor.name);
    }
    write_safetensors(fmt::format("{}/{}", directory, name), std::move(shards[i]));
  }
  AtomicFile index(directory + "/model.safetensors.index.json");
  index.write(Json{{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}}.dump(2) + "\n");
  index.commit();
}

}  // namespace frugal::io
