#include <algorithm>
#include <charconv>
#include <limits>

#include "base/checked.h"
#include "base/log.h"
#include "io/checkpoint.h"
#include "models/description.h"
#include "models/encoder.h"
#include "models/loader.h"
#include "models/tensor_names.h"
#include "models/weight_reader.h"
#include "nn/sharing.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace frugal::models {
namespace {

using io::Checkpoint;
using nn::LoadedModel;
using nn::ModelSpec;

constexpr size_t kMaxTemplateBytes = size_t{4} << 20;

// What is the block's own; the rest is for nn::share_weights.
nn::Block read_block(WeightReader& reader, const nn::BlockSpec& spec, size_t number, const nn::Sharing& sharing, nn::Execution execution) {
  nn::Block block;
  block.spec = spec;
  if (!sharing.owns(number)) return block;
  const size_t index = sharing.stored(number);
  for (const BlockNorm& norm : block_norms(spec)) {
    block.*norm.member = {spec.norm, spec.norm_eps, reader.vector(block_module(index, norm.huggingface, norm.gguf), ".weight", norm.features)};
  }
  block.input_norm.kind = block.post_attention_norm.kind = spec.norm;
  for (const BranchScale& scale : branch_scales(spec)) block.*scale.member = reader.vector(block_module(index, scale.huggingface, ""), "", 1);
  for (const BlockLinear& linear : block_linears()) {
    const MatrixShape shape = shape_of(spec, linear);
    if (shape.out == 0 || (is_mlp(linear) && !sharing.owns_mlp(number))) continue;
    block.*linear.member = reader.linear({.name = block_module(index, linear.huggingface, linear.gguf),
                                          .shape = shape,
                                          .bias = has_bias(spec, linear.bias),
                                          .rotary_head_dim = linear.rotary ? spec.head_dim : 0});
    (block.*linear.member).set_execution(execution);
  }
  return block;
}

// The block that a tensor belongs to by its name, or -1.
int64_t block_of(std::string_view name) {
  for (const std::string_view prefix : {"blk.", "model.layers."}) {
    if (!name.starts_with(prefix)) continue;
    int64_t index = -1;
    std::from_chars(name.data() + prefix.size(), name.data() + name.size(), index);
    return index;
  }
  return -1;
}

// A tensor that the architecture has no place for may mean that the model computes something else than its maker's.
void report_unused(const std::vector<std::string>& names, int64_t blocks, const std::string& path) {
  std::vector<std::string> unknown;
  for (const std::string& name : names) {
    if (block_of(name) >= blocks) {
      fail(ErrorKind::corrupt_file, "{}: tensor {} belongs to a block beyond the {} that the configuration names", path, printable(name), blocks);
    }
    // Tables of positions, which are computed here.
    const bool table = name.find("rotary_emb.inv_freq") != name.npos || name.find("rope_freqs") != name.npos || name.find("attn_rot_embd") != name.npos;
    if (!table) unknown.push_back(name);
  }
  if (unknown.empty()) return;
  log_warning("{}: the architecture has no place for {} of the tensors, {} the first of them; the results may not be what its maker meant", path,
              unknown.size(), printable(unknown.front()));
}

std::shared_ptr<nn::Model> read_model(const std::shared_ptr<const Checkpoint>& checkpoint, ModelSpec spec, nn::Execution execution) {
  WeightReader reader(checkpoint, family_at(spec.family).gguf_interleaves_rotary_rows);
  auto model = std::make_shared<nn::Model>();
  const MatrixShape table = {spec.vocab, spec.hidden};
  const nn::Linear embedding = reader.linear({.name = embedding_name(), .shape = table});
  if (embedding.kinds().size() != 1)
    fail(ErrorKind::unsupported, "{}: the embedding is a sum of {} terms, only one is supported", checkpoint->path, embedding.kinds().size());
  model->embedding = embedding.kinds().front();
  const nn::Sharing sharing = nn::sharing_of(spec);
  for (size_t i = 0; i < spec.blocks.size(); ++i) model->blocks.push_back(read_block(reader, spec.blocks[i], i, sharing, execution));
  model->final_norm = {spec.final_norm, spec.final_norm_eps,
                       spec.final_norm == nn::NormKind::none ? nn::Tensor() : reader.vector(final_norm_name(), ".weight", spec.hidden)};
  model->head = spec.tied_embeddings ? nn::Linear(head_name().huggingface, model->embedding) : reader.linear({.name = head_name(), .shape = table});
  model->spec = std::move(spec);
  nn::share_weights(*model);
  model->owners.push_back(checkpoint);
  model->set_execution(execution);
  report_unused(reader.unused(), static_cast<int64_t>(model->blocks.size()), checkpoint->path);
  return model;
}

uint64_t original_parameters(const Checkpoint& checkpoint, const nn::Model& model) {
  if (!checkpoint.manifest.is_object() || !checkpoint.manifest.contains("original_parameters")) return model.parameters();
  const JsonObject manifest(checkpoint.manifest, checkpoint.path + ": manifest");
  return static_cast<uint64_t>(manifest.integer("original_parameters", 1, std::numeric_limits<int64_t>::max()));
}

std::shared_ptr<const text::Tokenizer> read_tokenizer(const Checkpoint& checkpoint) {
  if (checkpoint.container == io::Container::gguf) {
    const bool there = checkpoint.metadata.has("tokenizer.ggml.model") || checkpoint.metadata.has("tokenizer.huggingface.json");
    return there ? text::tokenizer_from_metadata(checkpoint.metadata) : nullptr;
  }
  for (const char* name : {"tokenizer.json", "tokenizer.model", "spiece.model", "vocab.txt"}) {
    if (io::find_in_directory(checkpoint.path, name)) return text::load_tokenizer_directory(checkpoint.path);
  }
  return nullptr;
}

struct TemplateText {
  std::string text, name;
};

// chat_template of tokenizer_config.json and chat_template.json: a text, or a list of named ones.
std::optional<std::string> template_in(const Json& object) {
  if (!object.is_object() || !object.contains("chat_template")) return std::nullopt;
  const Json& value = object["chat_template"];
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return std::nullopt;
  for (const Json& item : value) {
    if (item.is_object() && item.value("name", Json()) == "default" && item.contains("template") && item["template"].is_string())
      return item["template"].get<std::string>();
  }
  return std::nullopt;
}

std::optional<TemplateText> find_template(const Checkpoint& checkpoint) {
  if (checkpoint.container == io::Container::gguf) {
    if (!checkpoint.metadata.has("tokenizer.chat_template")) return std::nullopt;
    return TemplateText{checkpoint.metadata.text("tokenizer.chat_template"), checkpoint.path + ": key tokenizer.chat_template"};
  }
  if (const auto path = io::find_in_directory(checkpoint.path, "chat_template.jinja")) return TemplateText{read_text_file(*path, kMaxTemplateBytes), *path};
  for (const char* name : {"chat_template.json", "tokenizer_config.json"}) {
    if (std::optional<std::string> text = template_in(io::read_json_in_directory(checkpoint.path, name)))
      return TemplateText{std::move(*text), checkpoint.path + "/" + name};
  }
  return std::nullopt;
}

// A template that is broken or that our interpreter does not know must not keep the weights from being used.
void read_template(const Checkpoint& checkpoint, LoadedModel& loaded) {
  const std::optional<TemplateText> found = find_template(checkpoint);
  if (!found || found->text.empty()) return;
  try {
    loaded.chat_template = std::make_shared<const text::ChatTemplate>(found->text, found->name);
  } catch (const Error& error) {
    loaded.chat_template_problem = error.what();
  }
}

// eos_token_id of generation_config.json or config.json: a number or a list.
void add_end_ids(const Json& config, const std::string& path, int64_t vocab, std::vector<int32_t>& ids) {
  if (!config.is_object()) return;
  const JsonObject object(config, path);
  const Json* value = object.find("eos_token_id");
  if (!value) return;
  if (!value->is_array()) {
    ids.push_back(static_cast<int32_t>(object.integer("eos_token_id", 0, vocab - 1)));
    return;
  }
  if (value->size() > 256) object.fail_at("eos_token_id", "must have at most 256 items");
  for (const Json& item : *value) {
    if (!item.is_number_integer() || item.get<int64_t>() < 0 || item.get<int64_t>() >= vocab)
      object.fail_at("eos_token_id", fmt::format("items must be integers in 0..{}", vocab - 1));
    ids.push_back(item.get<int32_t>());
  }
}

void read_text_parts(const Checkpoint& checkpoint, int64_t vocab, LoadedModel& loaded) {
  loaded.tokenizer = read_tokenizer(checkpoint);
  read_template(checkpoint, loaded);
  loaded.generation_config = Json::object();
  if (checkpoint.container == io::Container::huggingface) {
    const Json generation = io::read_json_in_directory(checkpoint.path, "generation_config.json");
    if (!generation.is_null() && !generation.is_object()) {
      fail(ErrorKind::corrupt_file, "{}/generation_config.json: must be an object", checkpoint.path);
    }
    if (generation.is_object()) loaded.generation_config = generation;
    add_end_ids(generation, checkpoint.path + "/generation_config.json", vocab, loaded.end_ids);
    add_end_ids(checkpoint.config, checkpoint.path + "/config.json", vocab, loaded.end_ids);
  }
  if (loaded.tokenizer && loaded.tokenizer->vocab_size() > vocab) {
    fail(ErrorKind::corrupt_file, "{}: the tokenizer has {} tokens, the embedding only {} rows", checkpoint.path, loaded.tokenizer->vocab_size(), vocab);
  }
  if (loaded.tokenizer) {
    const text::SpecialTokens& special = loaded.tokenizer->special();
    for (const int32_t id : special.end_of_generation) {
      if (id < vocab) loaded.end_ids.push_back(id);
    }
    if (special.bos) loaded.bos_text = loaded.tokenizer->token_text(*special.bos);
    if (special.eos) loaded.eos_text = loaded.tokenizer->token_text(*special.eos);
  }
  std::sort(loaded.end_ids.begin(), loaded.end_ids.end());
  loaded.end_ids.erase(std::unique(loaded.end_ids.begin(), loaded.end_ids.end()), loaded.end_ids.end());
}

}  // namespace

LoadedModel Loader::load_any(const std::string& path, nn::Execution execution) const {
  const std::shared_ptr<const Checkpoint> checkpoint = io::open_checkpoint(path);
  LoadedModel loaded;
  if (holds_encoder(*checkpoint)) {
    loaded.encoder = read_encoder(checkpoint, execution);
    read_text_parts(*checkpoint, loaded.encoder->spec.vocab, loaded);
    loaded.embedding = read_embedding_spec(*checkpoint, true, loaded.encoder->spec.positions);
  } else {
    loaded.model = read_model(checkpoint, describe(*checkpoint), execution);
    loaded.model->original_parameters = original_parameters(*checkpoint, *loaded.model);
    read_text_parts(*checkpoint, loaded.model->spec.vocab, loaded);
    loaded.embedding = read_embedding_spec(*checkpoint, false, loaded.model->spec.context_length);
  }
  loaded.manifest = checkpoint->manifest;
  loaded.source = checkpoint;
  loaded.name = checkpoint->name();
  loaded.file_bytes = checkpoint->weight_bytes;
  return loaded;
}

LoadedModel Loader::load(const std::string& path, nn::Execution execution) const {
  LoadedModel loaded = load_any(path, execution);
  if (!loaded.model) {
    fail(ErrorKind::unsupported, "{}: an encoder ({}), which makes embeddings and generates no text; frugal serve opens it", path, loaded.encoder->spec.family);
  }
  return loaded;
}

}  // namespace frugal::models
