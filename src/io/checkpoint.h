// A model on disk, opened for reading: configuration and mapped tensors, whatever the container. Nothing is copied; the
// views live as long as the Checkpoint. Thread-safe after opening.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/metadata.h"

namespace frugal::io {

enum class Container { gguf, huggingface };

struct Checkpoint {
  Container container = Container::gguf;
  std::string path;                                    // as given: the .gguf file or the directory
  Metadata metadata;                                   // GGUF: all keys. Hugging Face: empty
  Json config;                                         // Hugging Face: config.json. GGUF: null
  Json manifest;                                       // frugal.json or GGUF key frugal.chain; null when absent
  std::map<std::string, TensorView, std::less<>> tensors;
  std::vector<std::shared_ptr<MappedFile>> files;      // own the bytes
  uint64_t weight_bytes = 0;                           // all weight files on disk

  const TensorView* find(std::string_view name) const;
  const TensorView& at(std::string_view name) const;   // throws Error{corrupt_file}: which tensor, in which file
};

// A .gguf file (first shard of a split one), or a directory with config.json and safetensors.
// Throws Error{io, corrupt_file, unsupported}.
std::shared_ptr<const Checkpoint> open_checkpoint(const std::string& path);

}  // namespace frugal::io
