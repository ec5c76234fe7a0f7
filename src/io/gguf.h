// GGUF, versions 2 and 3, little-endian: the file format of llama.cpp (ggml/docs/gguf.md). Reader of untrusted bytes.
// Layout: magic, version, counts, key-values, tensor infos, padding, tensor data.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/metadata.h"

namespace frugal::io {

// Value types as the file numbers them.
enum class GgufType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };

// The type a key has in the file, kept beside Metadata (which knows only kinds) so that a copy is written as it was read.
struct GgufKeyType {
  bool is_array = false;
  GgufType type = GgufType::u32;  // of the value, or of an array's elements
  bool operator==(const GgufKeyType&) const = default;
};
using GgufKeyTypes = std::map<std::string, GgufKeyType, std::less<>>;

struct GgufFile {
  uint32_t version = 3;
  uint64_t alignment = 32;
  Metadata metadata;
  GgufKeyTypes types;
  std::vector<TensorView> tensors;  // in the order of the file
};

// Views into `bytes`, which must outlive the result; `name` leads messages. Nothing is allocated from a count before the
// bytes that it needs are known to be there. Throws Error{corrupt_file} with the offset, or Error{unsupported} for another
// version, byte order or tensor type.
GgufFile read_gguf(std::span<const std::byte> bytes, const std::string& name);

struct GgufModel {
  GgufFile content;  // metadata of the first file, tensors of all
  std::vector<std::shared_ptr<MappedFile>> files;
};

// A .gguf file with, if `split.count` says so, its sibling shards "<prefix>-0000i-of-0000n.gguf". `path` is the first one.
GgufModel open_gguf(const std::string& path);

inline constexpr uint64_t kMaxGgufAlignment = uint64_t{1} << 20;
inline constexpr size_t kMaxGgufTensorName = 64;
inline constexpr size_t kMaxGgufKey = 65535;

}  // namespace frugal::io
