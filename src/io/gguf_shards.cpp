// A GGUF model in one file or several.
#include <filesystem>
#include <set>

#include "base/error.h"
#include "io/gguf.h"

namespace frugal::io {
namespace {

// The path of shard `index` (from 0) beside `first`, which must be named as shard 1 of `count`.
std::string shard_path(const std::string& first, int64_t index, int64_t count) {
  const std::string expected = fmt::format("-{:05}-of-{:05}.gguf", 1, count);
  if (!first.ends_with(expected)) {
    fail(ErrorKind::corrupt_file, "{}: key split.count says {} files, so the first must be named ...{}; open that one", first, count, expected);
  }
  return first.substr(0, first.size() - expected.size()) + fmt::format("-{:05}-of-{:05}.gguf", index + 1, count);
}

// Later shards carry the split keys only; whatever else they say must agree with the first.
void check_shard(const GgufFile& first, const GgufFile& shard, int64_t index, int64_t count) {
  if (shard.metadata.integer("split.no", 0, 65534) != index) shard.metadata.fail_at("split.no", fmt::format("must be {}", index));
  if (shard.metadata.integer("split.count", 1, 65535) != count) shard.metadata.fail_at("split.count", fmt::format("must be {}", count));
  for (const char* key : {"split.tensors.count", "general.architecture", "general.name"}) {
    const MetadataValue* here = shard.metadata.find(key);
    const MetadataValue* there = first.metadata.find(key);
    if (here && there && to_string(*here) != to_string(*there)) {
      shard.metadata.fail_at(key, fmt::format("the first shard says {}: the files belong to different models", printable(to_string(*there))));
    }
  }
}

}  // namespace

GgufModel open_gguf(const std::string& path) {
  GgufModel model;
  model.files.push_back(MappedFile::open(path));
  model.content = read_gguf(model.files[0]->bytes(), path);
  GgufFile& first = model.content;
  if (!first.metadata.has("split.count")) return model;
  const int64_t count = first.metadata.integer("split.count", 1, 65535);
  if (const int64_t index = first.metadata.integer("split.no", 0, 65534); index != 0) {
    fail(ErrorKind::invalid_input, "{}: is shard {} of {}; open the first one (...-00001-of-{:05}.gguf)", path, index + 1, count, count);
  }
  if (count == 1) return model;
  std::set<std::string, std::less<>> names;
  for (const TensorView& tensor : first.tensors) names.insert(tensor.name);
  for (int64_t index = 1; index < count; ++index) {
    const std::string shard_name = shard_path(path, index, count);
    if (!std::filesystem::exists(shard_name)) fail(ErrorKind::io, "{}: shard {} of {} is missing", shard_name, index + 1, count);
    model.files.push_back(MappedFile::open(shard_name));
    GgufFile shard = read_gguf(model.files.back()->bytes(), shard_name);
    check_shard(first, shard, index, count);
    for (TensorView& tensor : shard.tensors) {
      if (!names.insert(tensor.name).second) {
        fail(ErrorKind::corrupt_file, "{}: tensor {} is in an earlier shard too", shard_name, printable(tensor.name));
      }
      first.tensors.push_back(std::move(tensor));
    }
  }
  if (first.metadata.has("split.tensors.count")) {
    const int64_t total = first.metadata.integer("split.tensors.count", 0, INT64_MAX);
    if (static_cast<uint64_t>(total) != first.tensors.size()) {
      first.metadata.fail_at("split.tensors.count", fmt::format("the {} shards hold {} tensors", count, first.tensors.size()));
    }
  }
  return model;
}

}  // namespace frugal::io
