#include "base/error.h"
#include "base/log.h"
#include "models/encoder.h"
#include "models/weight_reader.h"

namespace frugal::models {
namespace {

using io::Checkpoint;
using nn::EncoderActivation;
using nn::EncoderSpec;

constexpr int64_t kMaxWidth = int64_t{1} << 30, kMaxHeads = 65536, kMaxLayers = 65536;

struct Description {
  EncoderSpec spec;
  int64_t layers = 0;
};

[[noreturn]] void refuse(const JsonObject& config, std::string_view key, const std::string& value, std::string_view known) {
  fail(ErrorKind::unsupported, "{}.{}: \"{}\" is not supported in an encoder ({})", config.path(), key, printable(value), known);
}

EncoderActivation activation_of(const JsonObject& config) {
  const std::string name = config.text_or("hidden_act", "gelu");
  if (name == "gelu" || name == "gelu_python") return EncoderActivation::gelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") return EncoderActivation::gelu_tanh;
  if (name == "relu") return EncoderActivation::relu;
  refuse(config, "hidden_act", name, "gelu, gelu_new, gelu_pytorch_tanh, relu are");
}

int64_t labels_of(const JsonObject& config) {
  const Json* const names = config.find("id2label");
  return config.integer_or("num_labels", names && names->is_object() ? std::ssize(*names) : 2, 0, kMaxWidth);
}

Description from_config(const JsonObject& config) {
  Description result;
  EncoderSpec& spec = result.spec;
  spec.vocab = config.integer_or("vocab_size", 30522, 1, kMaxWidth);
  spec.hidden = config.integer("hidden_size", 1, kMaxWidth);
  spec.heads = config.integer("num_attention_heads", 1, kMaxHeads);
  spec.intermediate = config.integer("intermediate_size", 1, kMaxWidth);
  spec.positions = config.integer_or("max_position_embeddings", 512, 1, kMaxWidth);
  spec.token_types = config.integer_or("type_vocab_size", 2, 1, kMaxWidth);
  spec.norm_eps = config.number_or("layer_norm_eps", 1e-12, 1e-30, 1);
  spec.activation = activation_of(config);
  result.layers = config.integer("num_hidden_layers", 1, kMaxLayers);
  if (spec.hidden % spec.heads != 0) config.fail_at("hidden_size", fmt::format("must be a multiple of num_attention_heads, {}", spec.heads));
  if (const std::string kind = config.text_or("position_embedding_type", "absolute"); kind != "absolute") {
    refuse(config, "position_embedding_type", kind, "absolute is");
  }
  for (const char* key : {"is_decoder", "add_cross_attention"}) {
    if (config.boolean_or(key, false)) refuse(config, key, "true", "false is");
  }
  const std::vector<std::string> classes = config.has("architectures") ? config.texts("architectures") : std::vector<std::string>{};
  const std::string name = classes.empty() ? "BertModel" : classes.front();
  if (name == "BertForSequenceClassification") {
    if (const int64_t labels = labels_of(config); labels != 1) {
      fail(ErrorKind::unsupported, "{}: a {} of {} labels is not supported, only one of 1 label, which scores pairs", config.path(), name, labels);
    }
    spec.scores_pairs = true;
  } else if (name != "BertModel" && name != "BertForMaskedLM" && name != "BertForPreTraining") {
    refuse(config, "architectures", name, "BertModel, BertForMaskedLM, BertForPreTraining, BertForSequenceClassification are");
  }
  return result;
}

int64_t rows_of(const Checkpoint& checkpoint, const char* name) {
  const TensorView& table = checkpoint.at(name);
  if (table.shape.size() != 2) fail(ErrorKind::corrupt_file, "{}: tensor {} must be a matrix", checkpoint.path, name);
  return table.shape[0];
}

Description from_gguf(const Checkpoint& checkpoint) {
  const Metadata& keys = checkpoint.metadata;
  const auto key = [](const char* name) { return fmt::format("{}.{}", kEncoderType, name); };
  Description result;
  EncoderSpec& spec = result.spec;
  spec.vocab = rows_of(checkpoint, "token_embd.weight");
  spec.positions = rows_of(checkpoint, "position_embd.weight");
  spec.token_types = rows_of(checkpoint, "token_types.weight");
  spec.hidden = keys.integer(key("embedding_length"), 1, kMaxWidth);
  spec.heads = keys.integer(key("attention.head_count"), 1, kMaxHeads);
  spec.intermediate = keys.integer(key("feed_forward_length"), 1, kMaxWidth);
  spec.norm_eps = keys.number_or(key("attention.layer_norm_epsilon"), 1e-12);
  result.layers = keys.integer(key("block_count"), 1, kMaxLayers);
  if (spec.hidden % spec.heads != 0) keys.fail_at(key("embedding_length"), fmt::format("must be a multiple of the number of heads, {}", spec.heads));
  if (keys.boolean_or(key("attention.causal"), false)) fail(ErrorKind::unsupported, "{}: a causal encoder is not supported", checkpoint.path);
  return result;
}

// Reads modules by what they are called in the two containers.
class BertReader {
 public:
  BertReader(const std::shared_ptr<const Checkpoint>& checkpoint, const EncoderSpec& spec, nn::Execution execution)
      : reader_(checkpoint, /*interleaved=*/false), spec_(spec), execution_(execution) {}

  std::shared_ptr<nn::LinearKind> table(const char* name, const char* gguf, int64_t rows) {
    const nn::Linear linear = reader_.linear({.name = {std::string("model.embeddings.") + name, gguf}, .shape = {rows, spec_.hidden}});
    FRUGAL_ASSERT(linear.kinds().size() == 1);
    return linear.kinds().front();
  }
  nn::Linear linear(const ModuleName& name, int64_t out, int64_t in) {
    nn::Linear linear = reader_.linear({.name = name, .shape = {out, in}, .bias = true});
    linear.set_execution(execution_);
    return linear;
  }
  nn::LayerNorm norm(const ModuleName& name) {
    return {spec_.norm_eps, reader_.vector(name, ".weight", spec_.hidden), reader_.vector(name, ".bias", spec_.hidden)};
  }
  nn::EncoderBlock block(size_t index) {
    const auto name = [&](const char* huggingface, const char* gguf) {
      return ModuleName{fmt::format("model.encoder.layer.{}.{}", index, huggingface), fmt::format("blk.{}.{}", index, gguf)};
    };
    const int64_t hidden = spec_.hidden, inner = spec_.intermediate;
    nn::EncoderBlock block;
    block.query = linear(name("attention.self.query", "attn_q"), hidden, hidden);
    block.key = linear(name("attention.self.key", "attn_k"), hidden, hidden);
    block.value = linear(name("attention.self.value", "attn_v"), hidden, hidden);
    block.output = linear(name("attention.output.dense", "attn_output"), hidden, hidden);
    block.attention_norm = norm(name("attention.output.LayerNorm", "attn_output_norm"));
    block.up = linear(name("intermediate.dense", "ffn_up"), inner, hidden);
    block.down = linear(name("output.dense", "ffn_down"), hidden, inner);
    block.mlp_norm = norm(name("output.LayerNorm", "layer_output_norm"));
    return block;
  }
  std::vector<std::string> unused() const { return reader_.unused(); }

 private:
  WeightReader reader_;
  const EncoderSpec& spec_;
  nn::Execution execution_;
};

// Tensors without a place: heads of training that an encoder has no use for, and tables that are computed here, are no surprise.
void report_unused(const std::vector<std::string>& names, const std::string& path) {
  for (const std::string& name : names) {
    const bool known = name.find("position_ids") != name.npos || name.find("pooler.") != name.npos || name.starts_with("cls.");
    if (known) continue;
    log_warning("{}: the encoder has no place for tensor {}; the results may not be what its maker meant", path, printable(name));
    return;
  }
}

std::string type_of(const Checkpoint& checkpoint) {
  if (checkpoint.container == io::Container::gguf) return checkpoint.metadata.text_or("general.architecture", "");
  const JsonObject config(checkpoint.config, checkpoint.path + "/config.json");
  const std::string type = config.text_or("model_type", "");
  const bool by_class = type.empty() && config.has("architectures") && !config.texts("architectures").empty();
  return by_class && config.texts("architectures").front().starts_with("Bert") ? std::string(kEncoderType) : type;
}

}  // namespace

bool holds_encoder(const Checkpoint& checkpoint) { return type_of(checkpoint) == kEncoderType; }

std::shared_ptr<nn::Encoder> read_encoder(const std::shared_ptr<const Checkpoint>& checkpoint, nn::Execution execution) {
  const bool gguf = checkpoint->container == io::Container::gguf;
  Description description = gguf ? from_gguf(*checkpoint) : from_config(JsonObject(checkpoint->config, checkpoint->path + "/config.json"));
  description.spec.family = kEncoderType;
  auto encoder = std::make_shared<nn::Encoder>();
  const EncoderSpec& spec = encoder->spec = description.spec;
  BertReader reader(checkpoint, spec, execution);
  encoder->words = reader.table("word_embeddings", "token_embd", spec.vocab);
  encoder->positions = reader.table("position_embeddings", "position_embd", spec.positions);
  encoder->token_types = reader.table("token_type_embeddings", "token_types", spec.token_types);
  encoder->embedding_norm = reader.norm({"model.embeddings.LayerNorm", "token_embd_norm"});
  for (int64_t i = 0; i < description.layers; ++i) encoder->blocks.push_back(reader.block(static_cast<size_t>(i)));
  if (spec.scores_pairs) {
    encoder->pooler = reader.linear({"model.pooler.dense", ""}, spec.hidden, spec.hidden);
    encoder->classifier = reader.linear({"classifier", ""}, 1, spec.hidden);
  }
  encoder->owners.push_back(checkpoint);
  encoder->set_execution(execution);
  report_unused(reader.unused(), checkpoint->path);
  return encoder;
}

}  // namespace frugal::models
