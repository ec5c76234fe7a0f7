#include "io/peft.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/log.h"
#include "io/checkpoint.h"
#include "io/safetensors.h"

namespace frugal::io {
namespace {

constexpr const char* kConfigName = "adapter_config.json";
constexpr const char* kWeightsName = "adapter_model.safetensors";
// Shared tensors (VeRA) lie beside the model that "model." stands for.
constexpr std::string_view kPrefix = "base_model.", kModelPrefix = "model.", kShared = "vera_";
constexpr double kMaxAlpha = 1e6;
constexpr size_t kMaxListed = 1'000'000;

// What cannot change a number of the forward: origin, training, or the beginning of what the file now holds.
constexpr std::string_view kHarmless[] = {"auto_mapping",     "base_model_name_or_path",
                                          "inference_mode",   "peft_type",
                                          "peft_version",     "revision",
                                          "task_type",        "loftq_config",
                                          "eva_config",       "corda_config",
                                          "lora_ga_config",   "megatron_core",
                                          "init_weights",     "qalora_group_size",
                                          "init_ia3_weights", "init_lora_weights",
                                          "d_initial",        "fan_in_fan_out"};
constexpr std::string_view kRead[] = {"target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"};
constexpr std::string_view kReadLora[] = {"r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "use_qalora"};
constexpr std::string_view kReadIa3[] = {"feedforward_modules"};
constexpr std::string_view kReadVera[] = {"r", "vera_dropout", "projection_prng_key", "save_projection"};

constexpr std::string_view kReadAdaLora[] = {"r",      "init_r", "lora_alpha", "lora_dropout", "rank_pattern",    "target_r",  "tinit",
                                             "tfinal", "deltaT", "beta1",      "beta2",        "orth_reg_weight", "total_step"};
// How it began, or what the model says.
constexpr std::string_view kReadSoftPrompt[] = {
    "num_virtual_tokens",      "num_transformer_submodules", "token_dim",        "num_attention_heads", "num_layers",         "prompt_tuning_init",
    "prompt_tuning_init_text", "tokenizer_name_or_path",     "tokenizer_kwargs", "prefix_projection",   "encoder_hidden_size"};
constexpr std::string_view kReadBottleneck[] = {"bottleneck_size", "non_linearity", "adapter_dropout", "use_parallel_adapter", "scaling"};

bool contains(std::span<const std::string_view> names, std::string_view name) { return std::ranges::find(names, name) != names.end(); }

std::span<const std::string_view> fields_of(PeftType type) {
  switch (type) {
    case PeftType::lora: return kReadLora;
    case PeftType::ia3: return kReadIa3;
    case PeftType::vera: return kReadVera;
    case PeftType::bottleneck: return kReadBottleneck;
    case PeftType::adalora: return kReadAdaLora;
    case PeftType::prompt_tuning:
    case PeftType::prefix_tuning: return kReadSoftPrompt;
  }
  return {};
}

// As peft writes what is not asked for.
bool asks_for_nothing(const Json& value) {
  if (value.is_null() || value == false || value == "none") return true;
  return (value.is_array() || value.is_object()) && value.empty();
}

[[noreturn]] void fail_unsupported(const JsonObject& object, std::string_view key, std::string_view why) {
  fail(ErrorKind::unsupported, "{}.{}: {} is not supported{}{}", object.path(), printable(key),
       printable(object.json()[std::string(key)].dump(-1, ' ', true, Json::error_handler_t::replace)), why.empty() ? "" : ": ", why);
}

PeftType type_of(const JsonObject& object) {
  const std::string name = object.text("peft_type");
  constexpr PeftType kTypes[] = {PeftType::lora,    PeftType::ia3,           PeftType::vera,         PeftType::bottleneck,
                                 PeftType::adalora, PeftType::prompt_tuning, PeftType::prefix_tuning};
  for (const PeftType type : kTypes) {
    if (name == to_string(type)) return type;
  }
  std::vector<std::string_view> known;
  for (const PeftType type : kTypes) known.push_back(to_string(type));
  fail(ErrorKind::unsupported, "{}.peft_type: \"{}\" is not supported; these are: {}", object.path(), printable(name), fmt::join(known, ", "));
}

void check_other_fields(const JsonObject& object, PeftType type) {
  for (const auto& [key, value] : object.json().items()) {
    if (contains(kHarmless, key) || contains(kRead, key) || contains(fields_of(type), key) || asks_for_nothing(value)) continue;
    fail_unsupported(object, key, "");
  }
  // These take something off the base weights first.
  if (const Json* init = object.find("init_lora_weights")) {
    const bool plain = init->is_boolean() || *init == "gaussian" || *init == "eva" || *init == "orthogonal";
    if (!plain) fail_unsupported(object, "init_lora_weights", "the adapter belongs to other base weights; let peft convert it to plain LoRA");
  }
  if (object.boolean_or("fan_in_fan_out", false)) {
    log_warning("{}.fan_in_fan_out is for layers that hold their weight transposed; there are none, so it is ignored, as peft does", object.path());
  }
}

ModuleSelection selection(const JsonObject& object, const char* key) {
  ModuleSelection result;
  const Json* value = object.find(key);
  if (!value) return result;
  if (value->is_string()) {
    std::string text = value->get<std::string>();
    std::string lower = text;
    std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (lower == "all-linear")
      result.all_linear = true;
    else
      result.regex = std::move(text);
    return result;
  }
  if (!value->is_array()) object.fail_at(key, "must be a list of names or a regular expression");
  if (value->size() > kMaxListed) fail(ErrorKind::corrupt_file, "{}.{}: {} names, at most {} are read", object.path(), key, value->size(), kMaxListed);
  result.names = object.texts(key);
  if (std::ranges::find(result.names, "") != result.names.end()) fail(ErrorKind::corrupt_file, "{}.{}: holds an empty name", object.path(), key);
  return result;
}

std::vector<int64_t> layers(const JsonObject& object) {
  constexpr const char* kKey = "layers_to_transform";
  const Json* value = object.find(kKey);
  if (!value) return {};
  std::vector<int64_t> result;
  const Json list = value->is_array() ? *value : Json::array({*value});
  for (const Json& item : list) {
    if (!item.is_number_integer() || item.get<int64_t>() < 0 || item.get<int64_t>() > std::numeric_limits<int32_t>::max())
      object.fail_at(kKey, "must be the number of a layer, or a list of them");
    result.push_back(item.get<int64_t>());
  }
  return result;
}

std::vector<std::string> layer_patterns(const JsonObject& object) {
  constexpr const char* kKey = "layers_pattern";
  const Json* value = object.find(kKey);
  if (!value || *value == "") return {};
  std::vector<std::string> patterns = value->is_string() ? std::vector{value->get<std::string>()} : object.texts(kKey);
  for (const std::string& pattern : patterns) {
    const bool plain = !pattern.empty() && std::ranges::all_of(pattern, [](unsigned char c) { return std::isalnum(c) || c == '_'; });
    if (!plain) fail_unsupported(object, kKey, "only plain names of a module are");
  }
  return patterns;
}

template <typename Value, typename Read>
std::vector<std::pair<std::string, Value>> pattern_map(const JsonObject& object, const char* key, Read&& read) {
  std::vector<std::pair<std::string, Value>> result;
  if (!object.has(key)) return result;
  const JsonObject map = object.object(key);
  for (const auto& item : map.json().items()) result.emplace_back(item.key(), read(map, item.key()));
  return result;
}

std::vector<bool> truths(const JsonObject& object, const std::string& key, int64_t count) {
  const Json* value = object.find(key);
  const bool fits = value && value->is_array() && std::ssize(*value) == count && std::ranges::all_of(*value, [](const Json& one) { return one.is_boolean(); });
  if (!fits) object.fail_at(key, fmt::format("must be a list of init_r ({}) truth values", count));
  return value->get<std::vector<bool>>();
}

PeftConfig::RankBudget rank_budget(const JsonObject& object) {
  PeftConfig::RankBudget budget;
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  budget.target_r = object.integer_or("target_r", budget.target_r, 0, kMaxAdapterRank);
  budget.tinit = object.integer_or("tinit", budget.tinit, 0, kMost);
  budget.tfinal = object.integer_or("tfinal", budget.tfinal, 0, kMost);
  budget.delta_t = object.integer_or("deltaT", budget.delta_t, 1, kMost);
  budget.total_step = object.integer_or("total_step", budget.total_step, 0, kMost);
  budget.beta1 = object.number_or("beta1", budget.beta1, 0, 1);
  budget.beta2 = object.number_or("beta2", budget.beta2, 0, 1);
  budget.orth_reg_weight = object.number_or("orth_reg_weight", budget.orth_reg_weight, 0, kMaxAlpha);
  return budget;
}

// A pickle or an archive of one, by its first bytes, under whatever name. The length of a safetensors header may begin like one.
bool is_pickle(std::span<const std::byte> bytes) {
  const auto byte = [&](size_t i) { return static_cast<unsigned>(bytes[i]); };
  if (bytes.size() < 4 || (bytes.size() > 8 && byte(8) == '{')) return false;
  return (byte(0) == 0x80 && byte(1) <= 5) || (byte(0) == 'P' && byte(1) == 'K' && byte(2) == 3 && byte(3) == 4);
}

[[noreturn]] void refuse_pickle(const std::string& path) {
  fail(ErrorKind::unsupported, "{}: a pickle, which can run code and is never opened; let peft write the adapter as safetensors", path);
}

std::string plain_name(const std::string& path, const std::string& name) {
  std::string_view rest = name;
  if (name == kPromptEmbeddings) return name;
  const auto drop = [&](std::string_view prefix) {
    if (!rest.starts_with(prefix)) fail(ErrorKind::corrupt_file, "{}: tensor {}: its name must begin with \"base_model.model.\"", path, printable(name, 200));
    rest.remove_prefix(prefix.size());
  };
  drop(kPrefix);
  if (!rest.starts_with(kShared)) drop(kModelPrefix);
  return std::string(rest);
}

Json names_or_regex(const ModuleSelection& selection) {
  if (selection.all_linear) return "all-linear";
  if (!selection.regex.empty()) return selection.regex;
  return selection.names.empty() ? Json(nullptr) : Json(selection.names);
}

template <typename Value>
Json object_of(const std::vector<std::pair<std::string, Value>>& pairs) {
  Json object = Json::object();
  for (const auto& [key, value] : pairs) object[key] = value;
  return object;
}

// peft writes whole alphas as integers.
Json number(double value) { return value == std::trunc(value) ? Json(static_cast<int64_t>(value)) : Json(value); }

}  // namespace

std::string_view to_string(PeftType type) {
  switch (type) {
    case PeftType::lora: return "LORA";
    case PeftType::ia3: return "IA3";
    case PeftType::vera: return "VERA";
    case PeftType::bottleneck: return "BOTTLENECK";
    case PeftType::adalora: return "ADALORA";
    case PeftType::prompt_tuning: return "PROMPT_TUNING";
    case PeftType::prefix_tuning: return "PREFIX_TUNING";
  }
  return "";
}

PeftConfig parse_peft_config(const Json& json, const std::string& path) {
  const JsonObject object(json, path);
  PeftConfig config;
  config.type = type_of(object);
  check_other_fields(object, config.type);
  config.base_model = object.text_or("base_model_name_or_path", "");
  config.target_modules = selection(object, "target_modules");
  if (config.target_modules.empty() && !is_soft_prompt(config.type)) object.fail_at("target_modules", "must name the modules that the adapter is for");
  config.exclude_modules = selection(object, "exclude_modules");
  config.layers_to_transform = layers(object);
  config.layers_pattern = layer_patterns(object);
  if (config.target_modules.names.empty() && !config.layers_to_transform.empty())
    object.fail_at("layers_to_transform", "goes with a list of target_modules only");
  const auto rank = [](const JsonObject& at, std::string_view key) { return at.integer(key, 1, kMaxAdapterRank); };
  const auto alpha = [](const JsonObject& at, std::string_view key) { return at.number(key, -kMaxAlpha, kMaxAlpha); };
  const auto dropout = [&](std::string_view key) {
    config.dropout = object.number_or(key, 0, 0, 1);
    if (config.dropout == 1) object.fail_at(key, "must be below 1");
  };
  switch (config.type) {
    case PeftType::lora:
      if (object.has("r")) config.rank = rank(object, "r");
      if (object.has("lora_alpha")) config.alpha = alpha(object, "lora_alpha");
      dropout("lora_dropout");
      config.rslora = object.boolean_or("use_rslora", false);
      config.dora = object.boolean_or("use_dora", false);
      config.rank_pattern = pattern_map<int64_t>(object, "rank_pattern", rank);
      config.alpha_pattern = pattern_map<double>(object, "alpha_pattern", alpha);
      if (object.boolean_or("use_qalora", false)) {
        if (config.dora) fail_unsupported(object, "use_qalora", "DoRA does not go with it");
        config.qalora_group_size = object.integer_or("qalora_group_size", 16, 1, kMaxAdapterRank);
      }
      break;
    case PeftType::adalora:
      config.rank = object.integer_or("init_r", 12, 1, kMaxAdapterRank);
      if (object.has("lora_alpha")) config.alpha = alpha(object, "lora_alpha");
      dropout("lora_dropout");
      config.budget = rank_budget(object);
      config.kept_ranks =
          pattern_map<std::vector<bool>>(object, "rank_pattern", [&](const JsonObject& at, const std::string& key) { return truths(at, key, config.rank); });
      break;
    case PeftType::prompt_tuning:
    case PeftType::prefix_tuning:
      config.virtual_tokens = object.integer("num_virtual_tokens", 1, kMaxVirtualTokens);
      if (object.integer_or("num_transformer_submodules", 1, 1, 2) != 1) fail_unsupported(object, "num_transformer_submodules", "1 is, of a decoder");
      break;
    case PeftType::ia3:
      config.feedforward_modules = selection(object, "feedforward_modules");
      if (config.feedforward_modules.all_linear) fail_unsupported(object, "feedforward_modules", "");
      break;
    case PeftType::vera:
      config.rank = object.integer_or("r", 256, 1, kMaxAdapterRank);
      dropout("vera_dropout");
      config.projection_key = static_cast<uint64_t>(object.integer_or("projection_prng_key", 0, 0, std::numeric_limits<int64_t>::max()));
      config.save_projection = object.boolean_or("save_projection", true);
      break;
    case PeftType::bottleneck:
      config.rank = object.integer_or("bottleneck_size", 256, 1, kMaxAdapterRank);
      dropout("adapter_dropout");
      config.parallel = object.boolean_or("use_parallel_adapter", false);
      if (const Json* scaling = object.find("scaling"); scaling && *scaling == "learned") fail_unsupported(object, "scaling", "a number is");
      config.scaling = object.number_or("scaling", 1, -kMaxAlpha, kMaxAlpha);
      config.activation = object.text_or("non_linearity", "tanh");
      if (std::ranges::find(kBottleneckActivations, config.activation) == std::end(kBottleneckActivations))
        fail_unsupported(object, "non_linearity", "relu, tanh, gelu and silu are");
      break;
  }
  return config;
}

Json to_json(const PeftConfig& config) {
  Json json = {{"peft_type", to_string(config.type)},
               {"base_model_name_or_path", config.base_model.empty() ? Json(nullptr) : Json(config.base_model)},
               {"task_type", "CAUSAL_LM"},
               {"inference_mode", true}};
  if (!is_soft_prompt(config.type))
    json.update({{"target_modules", names_or_regex(config.target_modules)}, {"fan_in_fan_out", false}, {"modules_to_save", nullptr}});
  if (!config.exclude_modules.empty()) json["exclude_modules"] = names_or_regex(config.exclude_modules);
  if (!config.layers_to_transform.empty()) json["layers_to_transform"] = config.layers_to_transform;
  if (!config.layers_pattern.empty()) json["layers_pattern"] = config.layers_pattern;
  switch (config.type) {
    case PeftType::lora:
      json.update({{"r", config.rank},
                   {"lora_alpha", number(config.alpha)},
                   {"lora_dropout", config.dropout},
                   {"bias", "none"},
                   {"use_rslora", config.rslora},
                   {"use_dora", config.dora},
                   {"rank_pattern", object_of(config.rank_pattern)},
                   {"alpha_pattern", object_of(config.alpha_pattern)},
                   {"init_lora_weights", true}});
      if (config.qalora_group_size > 0) json.update({{"use_qalora", true}, {"qalora_group_size", config.qalora_group_size}});
      break;
    case PeftType::adalora:
      json.update({{"init_r", config.rank},
                   {"target_r", config.budget.target_r},
                   {"lora_alpha", number(config.alpha)},
                   {"lora_dropout", config.dropout},
                   {"bias", "none"},
                   {"tinit", config.budget.tinit},
                   {"tfinal", config.budget.tfinal},
                   {"deltaT", config.budget.delta_t},
                   {"beta1", config.budget.beta1},
                   {"beta2", config.budget.beta2},
                   {"orth_reg_weight", config.budget.orth_reg_weight},
                   {"total_step", config.budget.total_step},
                   {"rank_pattern", config.kept_ranks.empty() ? Json(nullptr) : object_of(config.kept_ranks)},
                   {"init_lora_weights", true}});
      break;
    case PeftType::prompt_tuning:
    case PeftType::prefix_tuning:
      json.update({{"num_virtual_tokens", config.virtual_tokens},
                   {"token_dim", config.token_dim},
                   {"num_transformer_submodules", 1},
                   {"num_attention_heads", config.attention_heads},
                   {"num_layers", config.layers}});
      if (config.type == PeftType::prompt_tuning)
        json.update({{"prompt_tuning_init", "RANDOM"}, {"prompt_tuning_init_text", nullptr}, {"tokenizer_name_or_path", nullptr}});
      else  // the file has what a projection gave, not what it was made of
        json.update({{"prefix_projection", false}, {"encoder_hidden_size", nullptr}});
      break;
    case PeftType::ia3:
      json["feedforward_modules"] = config.feedforward_modules.empty() ? Json::array() : names_or_regex(config.feedforward_modules);
      json["init_ia3_weights"] = true;
      break;
    case PeftType::vera:
      json.update({{"r", config.rank},
                   {"vera_dropout", config.dropout},
                   {"bias", "none"},
                   {"projection_prng_key", config.projection_key},
                   {"save_projection", config.save_projection},
                   {"init_weights", true}});
      break;
    case PeftType::bottleneck:
      json.update({{"bottleneck_size", config.rank},
                   {"non_linearity", config.activation},
                   {"adapter_dropout", config.dropout},
                   {"bias", "none"},
                   {"use_parallel_adapter", config.parallel},
                   {"scaling", config.scaling},
                   {"init_weights", "mam_adapter"}});
      break;
  }
  return json;
}

PeftAdapter read_peft(const std::string& directory) {
  PeftAdapter adapter;
  adapter.path = directory;
  const Json config = read_json_in_directory(directory, kConfigName);
  if (config.is_null()) fail(ErrorKind::invalid_input, "{}: not an adapter of peft: {} is missing", directory, kConfigName);
  adapter.config = parse_peft_config(config, directory + "/" + kConfigName);
  const std::optional<std::string> weights = find_in_directory(directory, kWeightsName);
  if (!weights) {
    if (const auto pickle = find_in_directory(directory, "adapter_model.bin")) refuse_pickle(*pickle);
    fail(ErrorKind::invalid_input, "{}: {} is missing", directory, kWeightsName);
  }
  adapter.file = MappedFile::open(*weights);
  if (is_pickle(adapter.file->bytes())) refuse_pickle(*weights);
  for (TensorView& view : read_safetensors(adapter.file->bytes(), *weights).tensors) {
    std::string name = plain_name(*weights, view.name);
    adapter.tensors.emplace(std::move(name), std::move(view));
  }
  return adapter;
}

void write_peft(const std::string& directory, const PeftConfig& config, std::vector<TensorToWrite> tensors, bool overwrite) {
  for (TensorToWrite& tensor : tensors) {
    if (tensor.name == kPromptEmbeddings) continue;
    const bool shared = tensor.name.starts_with(kShared);
    tensor.name = fmt::format("{}{}{}", kPrefix, shared ? "" : kModelPrefix, tensor.name);
  }
  AtomicDirectory folder(directory, overwrite, kConfigName);
  write_text_file(folder.staging() + "/" + kConfigName, to_json(config).dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
  write_safetensors(folder.staging() + "/" + kWeightsName, std::move(tensors));
  folder.commit();
}

}  // namespace frugal::io
