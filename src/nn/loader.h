// How a model gets into and out of memory. nn declares it, models/ implements it, cli/ hands it to chain, eval, claims
// and (later) train, search and serve: whoever needs a teacher, a draft or an encoder loads it through here.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "nn/encoder.h"
#include "nn/model.h"

namespace frugal::text {
class Tokenizer;
class ChatTemplate;
}  // namespace frugal::text

namespace frugal::nn {

// A model with what belongs to it. `source` is the opened checkpoint (io::Checkpoint), which savers need for the
// tokenizer, the template and the configuration keys that frugal does not interpret.
struct LoadedModel {
  std::shared_ptr<Model> model;                             // null when it is an encoder
  std::shared_ptr<Encoder> encoder;                         // null when it is a decoder
  EmbeddingSpec embedding;                                  // how either makes a vector of a text
  std::shared_ptr<const text::Tokenizer> tokenizer;         // null when the checkpoint has none
  std::shared_ptr<const text::ChatTemplate> chat_template;  // null when the checkpoint has none that works
  std::string chat_template_problem;                        // why the one that it has does not work, or empty
  std::string bos_text, eos_text;                           // as the chat template wants them
  std::vector<int32_t> end_ids;                             // ids that end an answer
  Json generation_config;                                   // Hugging Face's keys; object, maybe empty
  Json manifest;                                            // chain that made this checkpoint (frugal.json); null for an original
  std::shared_ptr<const void> source;
  std::string name;         // for people: file or directory name
  uint64_t file_bytes = 0;  // all weight files on disk
};

enum class SaveFormat {
  automatic,    // gguf when the path ends in .gguf, else huggingface if it can hold the model as it is, else frugal
  huggingface,  // directory that transformers + compressed-tensors read; the embedding becomes floats
  gguf,         // file that llama.cpp reads
  frugal        // Hugging Face directory plus frugal's own tensor layouts: every kind, smallest
};

// What `automatic` means for a path as far as its name tells: gguf for .gguf, else still automatic. Throws
// Error{invalid_input} when the path is named .gguf and the format is a directory.
SaveFormat target_format(SaveFormat format, const std::string& path);

struct SaveOptions {
  SaveFormat format = SaveFormat::automatic;
  std::string float_format = "F16";  // for weights that the container must hold as plain floats ("F16", "BF16", "F32")
  Json manifest = nullptr;           // written as frugal.json, or GGUF key frugal.chain
  bool expand = false;               // weights that the format cannot express are held as plain floats instead of refused
  bool overwrite = false;
};

class ModelLoader {
 public:
  virtual ~ModelLoader() = default;
  // path: a .gguf file or a Hugging Face / frugal directory; execution: as Model::set_execution. Throws Error.
  virtual LoadedModel load(const std::string& path, Execution execution = Execution::stored) const = 0;
  // The same, and encoders too, where load() refuses them.
  virtual LoadedModel load_any(const std::string& path, Execution execution = Execution::stored) const = 0;
  // Writes atomically. Throws Error{unsupported} that names the first weight that the format cannot express, before
  // anything is written.
  virtual void save(const LoadedModel& model, const std::string& path, const SaveOptions& options) const = 0;
  // "" when `format` can express the model, else the reason.
  virtual std::string cannot_express(const Model& model, SaveFormat format) const = 0;
};

}  // namespace frugal::nn
