#include "models/save.h"

#include "base/error.h"
#include "models/loader.h"
#include "models/tensor_names.h"
#include "nn/sharing.h"

namespace frugal::models {

using nn::SaveFormat;

std::vector<nn::Linear> matrices_of(const nn::Model& model) {
  std::vector<nn::Linear> linears = {nn::Linear(embedding_name().huggingface, model.embedding)};
  const nn::Sharing sharing = nn::sharing_of(model.spec);
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    for (const BlockLinear& part : block_linears()) {
      const nn::Linear& linear = model.blocks[i].*part.member;
      if (linear && (is_mlp(part) ? sharing.owns_mlp(i) : sharing.owns(i))) linears.push_back(linear);
    }
  }
  if (!model.spec.tied_embeddings) linears.push_back(model.head);
  return linears;
}

Json chain_manifest(const nn::LoadedModel& model, const nn::SaveOptions& options) {
  Json manifest = options.manifest.is_null() ? model.manifest : options.manifest;
  if (!manifest.is_object()) return nullptr;
  for (const char* key : {"modules", "blocks"}) manifest.erase(key);
  manifest["original_parameters"] = model.model->original_parameters;
  return manifest;
}

std::string Loader::cannot_express(const nn::Model& model, SaveFormat format) const {
  switch (format) {
    case SaveFormat::gguf: return cannot_express_in_gguf(model);
    case SaveFormat::huggingface: return cannot_express_in_directory(model, false);
    case SaveFormat::frugal: return cannot_express_in_directory(model, true);
    case SaveFormat::automatic: return "";
  }
  return "";
}

void Loader::save(const nn::LoadedModel& model, const std::string& path, const nn::SaveOptions& options) const {
  const std::string& floats = options.float_format;
  if (floats != "F32" && floats != "F16" && floats != "BF16")
    fail(ErrorKind::invalid_input, "float format \"{}\": F32, F16 and BF16 are known", printable(floats));
  SaveFormat format = nn::target_format(options.format, path);
  if (format == SaveFormat::automatic) {
    const bool float_embedding = dynamic_cast<const nn::DenseKind*>(model.model->embedding.get());
    const bool plain = options.expand || (float_embedding && cannot_express(*model.model, SaveFormat::huggingface).empty());
    format = plain ? SaveFormat::huggingface : SaveFormat::frugal;
  }
  if (format == SaveFormat::gguf) return save_gguf(model, path, options);
  save_directory(model, path, options, format == SaveFormat::frugal);
}

}  // namespace frugal::models
