// A GGUF file that llama.cpp reads.
#include <ATen/ATen.h>

#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "formats/format.h"
#include "io/checkpoint.h"
#include "io/gguf_writer.h"
#include "models/description.h"
#include "models/gguf_weight.h"
#include "models/row_order.h"
#include "models/save.h"
#include "models/tensor_names.h"
#include "models/text_files.h"
#include "nn/tensor_to_write.h"

namespace frugal::models {
namespace {

using nn::LoadedModel;
using nn::Model;
using nn::SaveOptions;

io::TensorToWrite norm_tensor(const std::string& module, const nn::Norm& norm) {
  return nn::tensor_to_write(module + ".weight", norm.kind == nn::NormKind::rms_plus_one ? norm.weight + 1 : norm.weight);
}

// Tensors in the order of the forward pass, with their places.
class TensorList {
 public:
  TensorList(const Model& model, const SaveOptions& options)
      : model_(model), options_(options), interleaved_(family_at(model.spec.family).gguf_interleaves_rotary_rows) {}

  std::vector<io::TensorToWrite> make() {
    add_matrix(nn::Linear(embedding_name().huggingface, model_.embedding), embedding_name(), 0);
    for (size_t i = 0; i < model_.blocks.size(); ++i) add_block(model_.blocks[i], i);
    tensors_.push_back(norm_tensor(final_norm_name().gguf, model_.final_norm));
    if (!model_.spec.tied_embeddings) add_matrix(model_.head, head_name(), 0);
    return std::move(tensors_);
  }

 private:
  void add_matrix(const nn::Linear& linear, const ModuleName& name, int64_t rotary_head_dim) {
    tensors_.push_back(gguf_tensor(linear, {name.gguf + ".weight", options_.float_format, options_.expand, rotary_head_dim}));
  }

  void add_block(const nn::Block& block, size_t index) {
    for (const BlockNorm& norm : block_norms(block.spec))
      tensors_.push_back(norm_tensor(block_module(index, norm.huggingface, norm.gguf).gguf, block.*norm.member));
    for (const BlockLinear& part : block_linears()) {
      const nn::Linear& linear = block.*part.member;
      if (!linear) continue;
      const ModuleName name = block_module(index, part.huggingface, part.gguf);
      const int64_t rotary = interleaved_ && part.rotary ? block.spec.head_dim : 0;
      add_matrix(linear, name, rotary);
      if (!linear.bias().defined()) continue;
      at::Tensor bias = linear.bias();
      if (rotary > 0) bias = bias.index_select(0, at::tensor(at::ArrayRef<int64_t>(interleaved_from_split(bias.size(0), rotary))));
      tensors_.push_back(nn::tensor_to_write(name.gguf + ".bias", bias));
    }
  }

  const Model& model_;
  const SaveOptions& options_;
  bool interleaved_;
  std::vector<io::TensorToWrite> tensors_;
};

// general.file_type of llama.cpp: the format that most bytes are in.
std::optional<uint64_t> file_type(const std::vector<io::TensorToWrite>& tensors) {
  static const std::map<std::string, uint64_t, std::less<>> kTypes = {{"F32", 0},     {"F16", 1},     {"Q4_0", 2},  {"Q4_1", 3},   {"Q8_0", 7},  {"Q5_0", 8},
                                                                      {"Q5_1", 9},    {"Q2_K", 10},   {"Q3_K", 12}, {"Q4_K", 15},  {"Q5_K", 17}, {"Q6_K", 18},
                                                                      {"IQ4_NL", 25}, {"IQ4_XS", 30}, {"BF16", 32}, {"TQ1_0", 36}, {"TQ2_0", 37}};
  std::map<std::string, uint64_t> bytes;
  for (const io::TensorToWrite& tensor : tensors) bytes[tensor.format] += io::size_of(tensor);
  const auto most = std::max_element(bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  const auto type = kTypes.find(most->first);
  return type == kTypes.end() ? std::nullopt : std::optional(type->second);
}

// The source's keys, but those of the architecture, which are written anew, and those that describe the file.
void copy_keys(const io::Checkpoint& source, io::GgufWriter& writer) {
  Metadata kept = source.metadata;
  const std::string prefix = kept.text("general.architecture") + ".";
  for (const auto& [key, value] : source.metadata.values()) {
    if (key.starts_with(prefix) || key == "general.file_type" || key == "frugal.chain") kept.erase(key);
  }
  writer.set_all(kept, source.key_types);
}

void set_keys(const LoadedModel& model, const SaveOptions& options, const Metadata& architecture, const Metadata& text, io::GgufWriter& writer) {
  const auto* source = static_cast<const io::Checkpoint*>(model.source.get());
  if (source && source->container == io::Container::gguf) {
    copy_keys(*source, writer);
  } else {
    writer.set("general.type", std::string("model"));
    if (!model.name.empty()) writer.set("general.name", model.name);
  }
  for (const Metadata* metadata : {&architecture, &text}) {
    for (const auto& [key, value] : metadata->values()) writer.set(key, value);
  }
  writer.set("general.quantization_version", uint64_t{2});
  const Json manifest = chain_manifest(model, options);
  if (!manifest.is_null()) writer.set("frugal.chain", manifest.dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace

std::string cannot_express_in_gguf(const Model& model) {
  try {
    gguf_of(model.spec);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::unsupported) throw;
    return error.what();
  }
  for (const nn::Linear& linear : matrices_of(model)) {
    if (std::string reason = cannot_express_in_gguf(linear); !reason.empty()) return reason;
  }
  return "";
}

void save_gguf(const LoadedModel& model, const std::string& path, const SaveOptions& options) {
  require_free_output(path, options.overwrite);
  const GgufDescription description = gguf_of(model.model->spec);
  const nn::BlockSpec& first = model.model->spec.blocks.front();
  if (model.model->spec.family == "mistral" && first.sliding_window > 0 && first.sliding_window < model.model->spec.context_length) {
    log_warning("llama.cpp ignores the sliding window of this architecture: its results will differ beyond {} tokens", first.sliding_window);
  }
  const Metadata text = gguf_text_metadata(model);
  std::vector<io::TensorToWrite> tensors = TensorList(*model.model, options).make();
  for (const auto& [name, factors] : description.rope_factors) {
    tensors.push_back(io::owned_tensor<float>(name, "F32", {static_cast<int64_t>(factors.size())}, {factors.begin(), factors.end()}));
  }
  io::GgufWriter writer(path);
  set_keys(model, options, description.metadata, text, writer);
  if (const std::optional<uint64_t> type = file_type(tensors)) writer.set("general.file_type", *type);
  for (io::TensorToWrite& tensor : tensors) writer.add(std::move(tensor));
  writer.write();
}

}  // namespace frugal::models
