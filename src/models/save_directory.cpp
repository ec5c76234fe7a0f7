// A Hugging Face directory: config.json, safetensors, tokenizer files; with frugal.json when frugal's own layouts or a chain
// need it.
#include <ATen/ATen.h>

#include "base/error.h"
#include "base/file.h"
#include "io/checkpoint.h"
#include "io/quantized_layout.h"
#include "io/safetensors.h"
#include "models/description.h"
#include "models/gguf_weight.h"
#include "models/save.h"
#include "models/stored_kind.h"
#include "models/tensor_names.h"
#include "models/text_files.h"
#include "nn/sharing.h"
#include "nn/tensor_to_write.h"

namespace frugal::models {
namespace {

using nn::LoadedModel;
using nn::Model;
using nn::SaveOptions;

// What lies in the files for `linear`. Hugging Face's words have integers for the symmetric blocks of GGUF.
io::StoredWeight stored_form(const nn::Linear& linear, bool own_layouts) {
  io::StoredWeight weight = stored_weight(linear.name(), linear.kinds());
  if (own_layouts || linear.kinds().size() != 1) return weight;
  const auto* block = dynamic_cast<const nn::BlockKind*>(linear.kinds().front().get());
  if (const auto grouped = block ? grouped_from_blocks(*block) : nullptr) weight.terms = {{grouped}};
  return weight;
}

bool is_dense(const nn::Linear& linear) { return linear.kinds().size() == 1 && dynamic_cast<const nn::DenseKind*>(linear.kinds().front().get()); }

std::string cannot_express(const nn::Linear& linear) {
  const std::string reason = io::cannot_express_in_compressed_tensors(stored_form(linear, false));
  return reason.empty() ? "" : fmt::format("{}: compressed-tensors has no words for {}", linear.name(), reason);
}

io::TensorToWrite norm_tensor(const std::string& module, const nn::Norm& norm, const Family& family) {
  const bool shift = family.norm_less_one && norm.kind == nn::NormKind::rms;
  return nn::tensor_to_write(module + ".weight", shift ? norm.weight - 1 : norm.weight);
}

void add_vectors(const Model& model, std::vector<io::TensorToWrite>& tensors) {
  const Family& family = family_at(model.spec.family);
  const nn::Sharing sharing = nn::sharing_of(model.spec);
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    if (!sharing.owns(i)) continue;
    const nn::Block& block = model.blocks[i];
    const size_t stored = sharing.stored(i);
    for (const BlockNorm& norm : block_norms(block.spec)) {
      tensors.push_back(norm_tensor(block_module(stored, norm.huggingface, norm.gguf).huggingface, block.*norm.member, family));
    }
    for (const BranchScale& scale : branch_scales(block.spec))
      tensors.push_back(nn::tensor_to_write(block_module(i, scale.huggingface, "").huggingface, block.*scale.member));
    for (const BlockLinear& part : block_linears()) {
      const nn::Linear& linear = block.*part.member;
      if (linear && linear.bias().defined() && (!is_mlp(part) || sharing.owns_mlp(i)))
        tensors.push_back(nn::tensor_to_write(block_module(stored, part.huggingface, part.gguf).huggingface + ".bias", linear.bias()));
    }
  }
  if (model.final_norm.weight.defined()) tensors.push_back(norm_tensor(final_norm_name().huggingface, model.final_norm, family));
}

struct Contents {
  std::vector<io::TensorToWrite> tensors;
  Json quantization_config, modules;
};

Contents collect(const Model& model, const SaveOptions& options, bool own_layouts) {
  io::QuantizedWriter writer(own_layouts);
  Contents contents;
  std::vector<std::string> floats;  // what compressed-tensors' target "Linear" must not match
  const std::string embedding = embedding_name().huggingface;
  for (const nn::Linear& linear : matrices_of(model)) {
    // transformers reads an embedding as floats only.
    const bool as_floats = !own_layouts && linear.name() == embedding && !is_dense(linear);
    const std::string reason = own_layouts || as_floats ? "" : cannot_express(linear);
    if (reason.empty() && !as_floats) {
      writer.add(linear.name(), stored_form(linear, own_layouts));
    } else if (as_floats || options.expand) {
      contents.tensors.push_back(float_tensor(linear, linear.name() + ".weight", options.float_format));
      floats.push_back(linear.name());
    } else {
      fail(ErrorKind::unsupported, "{}", reason);
    }
  }
  if (model.spec.tied_embeddings) floats.push_back(head_name().huggingface);
  contents.quantization_config = writer.quantization_config();
  if (contents.quantization_config.is_object()) {
    for (const std::string& module : floats) contents.quantization_config["ignore"].push_back(module);
  }
  contents.modules = writer.modules();
  for (io::TensorToWrite& tensor : writer.take_tensors()) contents.tensors.push_back(std::move(tensor));
  add_vectors(model, contents.tensors);
  return contents;
}

const char* torch_name(std::string_view format) { return format == "F32" ? "float32" : format == "F16" ? "float16" : "bfloat16"; }

// The keys that frugal interprets, anew; all others as the source had them.
Json full_config(const LoadedModel& model, Json config, const SaveOptions& options) {
  const auto* source = static_cast<const io::Checkpoint*>(model.source.get());
  if (source && source->container == io::Container::huggingface) {
    const bool nested = source->config.contains("text_config") && source->config["text_config"].is_object();
    Json kept = nested ? source->config["text_config"] : source->config;
    erase_interpreted_keys(kept);
    config.update(kept);
  } else {
    add_token_ids(model, config);
  }
  if (!config.contains("dtype") && !config.contains("torch_dtype")) {
    const auto* dense = dynamic_cast<const nn::DenseKind*>(model.model->embedding.get());
    config["torch_dtype"] = torch_name(dense ? dense->describe() : options.float_format);
  }
  return config;
}

Json full_manifest(const LoadedModel& model, const SaveOptions& options, const Contents& contents, const Json& blocks) {
  Json manifest = chain_manifest(model, options);
  if (manifest.is_null() && contents.modules.is_null() && blocks.is_null()) return nullptr;
  if (manifest.is_null()) manifest = {{"original_parameters", model.model->original_parameters}};
  if (!blocks.is_null()) manifest["blocks"] = blocks;
  if (!contents.modules.is_null()) manifest["modules"] = contents.modules;
  return manifest;
}

void write_json(const std::string& path, const Json& json) { write_text_file(path, json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"); }

ConfigAndBlocks words_for(const nn::ModelSpec& spec, bool own_layouts) {
  if (own_layouts) return config_and_blocks_of(spec);
  if (!family_at(spec.family).in_transformers)
    fail(ErrorKind::unsupported, "transformers has no class for the architecture of family {}: save it in frugal's own format", spec.family);
  return {config_of(spec), nullptr};
}

}  // namespace

std::string cannot_express_in_directory(const Model& model, bool own_layouts) {
  try {
    words_for(model.spec, own_layouts);
    collect(model, {}, own_layouts);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::unsupported) throw;
    return error.what();
  }
  return "";
}

void save_directory(const LoadedModel& model, const std::string& path, const SaveOptions& options, bool own_layouts) {
  ConfigAndBlocks words = words_for(model.model->spec, own_layouts);
  Contents contents = collect(*model.model, options, own_layouts);
  Json config = full_config(model, std::move(words.config), options);
  if (!contents.quantization_config.is_null()) config["quantization_config"] = contents.quantization_config;
  const Json manifest = full_manifest(model, options, contents, words.blocks);

  AtomicDirectory directory(path, options.overwrite, "config.json");
  write_json(directory.staging() + "/config.json", config);
  if (!manifest.is_null()) write_json(directory.staging() + "/frugal.json", manifest);
  write_text_files(model, directory.staging());
  io::write_model_tensors(directory.staging(), std::move(contents.tensors));
  directory.commit();
}

}  // namespace frugal::models
