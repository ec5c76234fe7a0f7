// safetensors: u64 header length, JSON header {name: {dtype, shape, data_offsets}, "__metadata__": {text: text}}, data.
// Reader of untrusted bytes, as strict as the reference implementation and stricter on names.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/metadata.h"
#include "io/tensor_to_write.h"

namespace frugal::io {

struct SafetensorsFile {
  std::map<std::string, std::string> metadata;  // __metadata__
  std::vector<TensorView> tensors;              // in the order of the data
};

// Views into `bytes`, which must outlive the result; `name` leads messages. The tensors cover the data exactly: no overlap,
// no hole, nothing after the last. Throws Error{corrupt_file} with the offset, Error{unsupported} for an unknown dtype.
SafetensorsFile read_safetensors(std::span<const std::byte> bytes, const std::string& name);

inline constexpr uint64_t kMaxSafetensorsHeader = 100'000'000;  // the reference's limit
inline constexpr size_t kMaxTensorName = 4096;

using SafetensorsMetadata = std::map<std::string, std::string>;

// Writes one file, atomically. Data is ordered by falling element size, so that every tensor is aligned to its elements; the
// header is padded to 8 bytes. Throws Error{unsupported} for a format that safetensors cannot name.
void write_safetensors(const std::string& path, std::vector<TensorToWrite> tensors, const SafetensorsMetadata& metadata = {{"format", "pt"}});

// Writes model.safetensors into `directory`, or, when that would be larger than max_shard_bytes, shards
// model-0000i-of-0000n.safetensors (each at most that large, one tensor at least) and model.safetensors.index.json.
void write_model_tensors(const std::string& directory, std::vector<TensorToWrite> tensors, uint64_t max_shard_bytes = uint64_t{5} << 30);

}  // namespace frugal::io
