// A model on disk, opened for reading: configuration and mapped tensors, whatever the container. Nothing is copied but
// misaligned tensors; the views live as long as the Checkpoint. Thread-safe after opening.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/metadata.h"
#include "io/gguf.h"

namespace frugal::io {

enum class Container { gguf, huggingface };

// What a Hugging Face directory holds besides its configuration and weights: tokenizer, template, generation settings.
inline constexpr const char* kTextFiles[] = {
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",     "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt",
    "merges.txt",     "chat_template.jinja",   "chat_template.json",      "generation_config.json"};

// Copies those that `source` has into the folder `directory`.
void copy_text_files(const std::string& source, const std::string& directory);

struct Checkpoint {
  Container container = Container::gguf;
  std::string path;        // as given: the .gguf file or the directory
  Metadata metadata;       // GGUF: all keys. Hugging Face: empty
  GgufKeyTypes key_types;  // GGUF: their types in the file, for a writer
  Json config;             // Hugging Face: config.json. GGUF: null
  Json manifest;           // frugal.json or GGUF key frugal.chain; null when absent
  std::map<std::string, TensorView, std::less<>> tensors;
  std::vector<std::string> order;                   // names of the tensors, in the order of the files
  std::vector<std::shared_ptr<MappedFile>> files;   // own the bytes
  std::vector<std::shared_ptr<const void>> copies;  // own the bytes of tensors that lay misaligned in their file
  uint64_t weight_bytes = 0;                        // all weight files on disk

  std::string name() const;  // for people: the file's or directory's
  const TensorView* find(std::string_view name) const;
  const TensorView& at(std::string_view name) const;  // throws Error{corrupt_file}: which tensor, in which file
};

// A .gguf file (first shard of a split one), or a directory with config.json and safetensors.
// Throws Error{io, corrupt_file, unsupported}.
std::shared_ptr<const Checkpoint> open_checkpoint(const std::string& path);

// A file of a model directory by its plain name, or nullopt when there is none. The file must lie in the directory; only a
// snapshot of the Hugging Face cache may link to its own blobs/. Throws Error{corrupt_file} for a name that is a path or
// a link that leads elsewhere.
std::optional<std::string> find_in_directory(const std::string& directory, std::string_view name);
// The same, read as strict JSON of at most 64 MiB; null when absent.
Json read_json_in_directory(const std::string& directory, std::string_view name);

}  // namespace frugal::io
