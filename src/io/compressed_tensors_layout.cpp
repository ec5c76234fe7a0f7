// compressed-tensors, the format of llm-compressor that transformers and vLLM read: pack-quantized, int-quantized,
// float-quantized. https://github.com/vllm-project/compressed-tensors
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cmath>

#include "io/quantized_readers.h"

namespace frugal::io {
namespace {

using formats::ActivationQuant;
using formats::GroupedWeight;

enum class Strategy { tensor, channel, group, block };

struct WeightScheme {
  int bits = 8;
  bool is_float = false;
  bool symmetric = true;
  Strategy strategy = Strategy::channel;
  int64_t group_size = -1;
  int64_t block_rows = 0, block_columns = 0;
};

std::string as_text(const JsonObject& object, std::string_view key) { return object.has(key) ? object.text(key) : std::string(); }

void parse_block(const JsonObject& args, WeightScheme& scheme) {
  const std::vector<double> block = args.numbers("block_structure");
  const bool good = block.size() == 2 && std::all_of(block.begin(), block.end(), [](double v) { return v >= 1 && v <= kMaxFeatures && v == std::floor(v); });
  if (!good) args.fail_at("block_structure", "must be two integers of at least 1");
  scheme.block_rows = static_cast<int64_t>(block[0]);
  scheme.block_columns = static_cast<int64_t>(block[1]);
}

WeightScheme parse_weights(const JsonObject& args) {
  WeightScheme scheme;
  scheme.bits = static_cast<int>(args.integer_or("num_bits", 8, 1, 16));
  const std::string type = args.text_or("type", "int");
  if (type != "int" && type != "float") args.fail_at("type", "must be int or float");
  scheme.is_float = type == "float";
  if (scheme.is_float && scheme.bits != 8) fail(ErrorKind::unsupported, "{}: {}-bit floats are not supported", args.path(), scheme.bits);
  if (scheme.bits > 8) fail(ErrorKind::unsupported, "{}: {} bits are not supported", args.path(), scheme.bits);
  scheme.symmetric = args.boolean_or("symmetric", true);
  if (scheme.is_float && !scheme.symmetric) fail(ErrorKind::unsupported, "{}: asymmetric floats are not supported", args.path());
  scheme.group_size = args.integer_or("group_size", -1, -1, kMaxFeatures);
  const bool grouped = args.has("group_size") && scheme.group_size != -1;
  const std::string strategy = args.has("strategy") ? args.text("strategy") : grouped ? "group" : args.has("group_size") ? "channel" : "tensor";
  if (strategy == "group") {
    scheme.strategy = Strategy::group;
    if (scheme.group_size < 1) args.fail_at("group_size", "must be at least 1 for the strategy group");
  } else if (strategy == "channel") {
    scheme.strategy = Strategy::channel;
  } else if (strategy == "tensor") {
    scheme.strategy = Strategy::tensor;
  } else if (strategy == "block" && scheme.is_float) {
    scheme.strategy = Strategy::block;
    parse_block(args, scheme);
  } else {
    fail(ErrorKind::unsupported, "{}.strategy: \"{}\" is not supported for {} weights", args.path(), printable(strategy), type);
  }
  return scheme;
}

struct ActivationScheme {
  ActivationQuant::Kind kind = ActivationQuant::Kind::none;
  int bits = 8;
  bool is_float = false;
};

ActivationScheme parse_activations(const JsonObject& group) {
  ActivationScheme scheme;
  if (!group.has("input_activations")) return scheme;
  const JsonObject args = group.object("input_activations");
  scheme.bits = static_cast<int>(args.integer_or("num_bits", 8, 1, 16));
  scheme.is_float = args.text_or("type", "int") == "float";
  const std::string strategy = args.text_or("strategy", "tensor");
  const Json* dynamic = args.find("dynamic");
  const bool is_dynamic = dynamic && dynamic->is_boolean() && dynamic->get<bool>();
  if (dynamic && !dynamic->is_boolean()) fail(ErrorKind::unsupported, "{}.dynamic: only true and false are supported", args.path());
  if (scheme.bits > 8 || (scheme.is_float && scheme.bits != 8)) fail(ErrorKind::unsupported, "{}: {} bits are not supported", args.path(), scheme.bits);
  if (!args.boolean_or("symmetric", true)) fail(ErrorKind::unsupported, "{}: asymmetric activations are not supported", args.path());
  if (strategy == "token" && is_dynamic) {
    scheme.kind = ActivationQuant::Kind::per_token;
  } else if (strategy == "tensor" && !is_dynamic) {
    scheme.kind = ActivationQuant::Kind::per_tensor;
  } else if (scheme.is_float) {
    scheme.kind = ActivationQuant::Kind::per_token;  // of float activations only the more exact unquantized form is computed
  } else {
    fail(ErrorKind::unsupported, "{}: {} activations with the strategy \"{}\" are not supported", args.path(), is_dynamic ? "dynamic" : "static",
         printable(strategy));
  }
  return scheme;
}

// "re:" patterns come from files: bounded in length, steps and memory.
bool matches_pattern(const std::string& pattern, std::string_view name, const std::string& path) {
  if (pattern.size() > 1024) fail(ErrorKind::unsupported, "{}: a pattern of {} bytes is too long", path, pattern.size());
  int code = 0;
  PCRE2_SIZE offset = 0;
  const auto free_all = [](auto* p) {
    if constexpr (std::is_same_v<decltype(p), pcre2_code*>) pcre2_code_free(p);
    if constexpr (std::is_same_v<decltype(p), pcre2_match_data*>) pcre2_match_data_free(p);
    if constexpr (std::is_same_v<decltype(p), pcre2_match_context*>) pcre2_match_context_free(p);
  };
  const std::unique_ptr<pcre2_code, decltype(free_all)> compiled(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_NEVER_BACKSLASH_C, &code, &offset, nullptr), free_all);
  if (!compiled) fail(ErrorKind::corrupt_file, "{}: pattern \"{}\" is not valid at offset {}", path, printable(pattern), offset);
  const std::unique_ptr<pcre2_match_context, decltype(free_all)> limits(pcre2_match_context_create(nullptr), free_all);
  const std::unique_ptr<pcre2_match_data, decltype(free_all)> result(pcre2_match_data_create_from_pattern(compiled.get(), nullptr), free_all);
  if (!limits || !result) fail(ErrorKind::out_of_memory, "{}: no memory for a pattern", path);
  pcre2_set_match_limit(limits.get(), 100000);
  pcre2_set_heap_limit(limits.get(), 1024);
  const int matched = pcre2_match(compiled.get(), reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(), 0, PCRE2_ANCHORED, result.get(), limits.get());
  if (matched >= 0) return true;
  if (matched == PCRE2_ERROR_NOMATCH) return false;
  fail(ErrorKind::unsupported, "{}: pattern \"{}\" takes too long to match", path, printable(pattern));
}

bool is_target(const JsonObject& group, const std::string& module) {
  for (const std::string& target : group.texts("targets")) {
    if (target == module || target == "Linear") return true;
    if (target.starts_with("re:") && matches_pattern(target.substr(3), module, group.path())) return true;
  }
  return false;
}

// The group whose targets name the module; with a single group there is nothing to choose.
JsonObject group_of(const JsonObject& config, const std::string& module) {
  const JsonObject groups = config.object("config_groups");
  for (const auto& [name, group] : groups.json().items()) {
    const JsonObject scheme(group, fmt::format("{}.{}", groups.path(), printable(name)));
    if (groups.json().size() == 1 || is_target(scheme, module)) return scheme;
  }
  fail(ErrorKind::corrupt_file, "{}: no group has {} among its targets, though its weight is quantized", groups.path(), printable(module, 200));
}

int64_t group_count(const WeightScheme& scheme, int64_t columns) {
  return scheme.strategy == Strategy::group ? (columns + scheme.group_size - 1) / scheme.group_size : 1;
}

// Scales [rows, groups]; one for the whole tensor is repeated for each row.
void read_scales(const ModuleTensors& tensors, const WeightScheme& scheme, GroupedWeight& weight) {
  const int64_t groups = group_count(scheme, weight.columns);
  weight.group_size = scheme.strategy == Strategy::group ? std::min(scheme.group_size, weight.columns) : weight.columns;
  ScaleTable table = scheme.strategy == Strategy::tensor ? tensors.scales("weight_scale", 1, 1) : tensors.scales("weight_scale", weight.rows, groups);
  weight.scale_format = table.format;
  weight.scales = std::move(table.values);
  if (scheme.strategy == Strategy::tensor) weight.scales.assign(static_cast<size_t>(weight.rows), weight.scales[0]);
}

// Zero points [rows, groups] in I8, or packed down the rows: dense, or by older writers whole fields in each word.
void read_zeros(const ModuleTensors& tensors, const WeightScheme& scheme, GroupedWeight& weight) {
  weight.symmetric = scheme.symmetric;
  if (scheme.symmetric) return;
  const int64_t groups = weight.groups();
  const float middle = static_cast<float>(1 << (weight.bits - 1));
  const TensorView& view = tensors.at("weight_zero_point");
  weight.zeros.resize(static_cast<size_t>(weight.rows * groups));
  if (view.format == "I8") {
    const bool single = scheme.strategy == Strategy::tensor && view.bytes.size() == 1;
    if (!single && view.shape != std::vector<int64_t>{weight.rows, groups}) tensors.fail_shape(view, fmt::format("I8 [{}, {}]", weight.rows, groups));
    for (size_t i = 0; i < weight.zeros.size(); ++i) weight.zeros[i] = static_cast<float>(values_of<int8_t>(view)[single ? 0 : i]) + middle;
    return;
  }
  const int64_t per_word = 32 / weight.bits;
  const int64_t dense = packed_words(weight.rows, weight.bits), padded = (weight.rows + per_word - 1) / per_word;
  const bool is_dense = view.shape == std::vector<int64_t>{dense, groups};
  if (view.format != "I32" || (!is_dense && view.shape != std::vector<int64_t>{padded, groups}))
    tensors.fail_shape(view, fmt::format("I32 [{}, {}]", dense, groups));
  const auto words = values_of<uint32_t>(view);
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (int64_t g = 0; g < groups; ++g) {
      const uint32_t* column = &words[static_cast<size_t>(g)];
      const uint32_t code =
          is_dense ? packed_field(column, groups, r, weight.bits) : column[r / per_word * groups] >> (r % per_word * weight.bits) & ((1u << weight.bits) - 1u);
      weight.zeros[static_cast<size_t>(r * groups + g)] = static_cast<float>(code);
    }
  }
}

void read_packed_codes(const ModuleTensors& tensors, GroupedWeight& weight) {
  const TensorView& packed = tensors.any_matrix("weight_packed", "I32");
  const TensorView& shape = tensors.at("weight_shape");
  if ((shape.format != "I64" && shape.format != "I32") || shape.shape != std::vector<int64_t>{2}) tensors.fail_shape(shape, "I64 [2]");
  const bool wide = shape.format == "I64";
  weight.rows = wide ? values_of<int64_t>(shape)[0] : values_of<int32_t>(shape)[0];
  weight.columns = wide ? values_of<int64_t>(shape)[1] : values_of<int32_t>(shape)[1];
  if (weight.rows != packed.shape[0] || weight.columns < 1 || weight.columns > kMaxFeatures) {
    tensors.refuse("weight_shape is [{}, {}], weight_packed has {} rows", weight.rows, weight.columns, packed.shape[0]);
  }
  const auto words = values_of<uint32_t>(packed);
  const int64_t per_word = 32 / weight.bits, file_words = packed.shape[1];
  if (file_words == weight.words_per_row()) {
    weight.codes.assign(words.begin(), words.end());
    return;
  }
  if (file_words != (weight.columns + per_word - 1) / per_word) {
    tensors.refuse("weight_packed has {} words in a row, {} columns of {} bits need {}", file_words, weight.columns, weight.bits, weight.words_per_row());
  }
  weight.codes.assign(static_cast<size_t>(weight.rows * weight.words_per_row()), 0);
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (int64_t c = 0; c < weight.columns; ++c) {
      const uint32_t code = words[static_cast<size_t>(r * file_words + c / per_word)] >> (c % per_word * weight.bits) & ((1u << weight.bits) - 1u);
      set_packed_field(&weight.codes[static_cast<size_t>(r * weight.words_per_row())], 1, c, weight.bits, code);
    }
  }
}

void read_byte_codes(const ModuleTensors& tensors, GroupedWeight& weight) {
  const TensorView& view = tensors.any_matrix("weight", "I8");
  weight.rows = view.shape[0];
  weight.columns = view.shape[1];
  weight.codes.assign(static_cast<size_t>(weight.rows * weight.words_per_row()), 0);
  const auto values = values_of<int8_t>(view);
  const int middle = 1 << (weight.bits - 1);
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (int64_t c = 0; c < weight.columns; ++c) {
      const int code = values[static_cast<size_t>(r * weight.columns + c)] + middle;
      if (code < 0 || code >= 2 * middle) tensors.refuse("weight holds {}, which {} bits cannot", code - middle, weight.bits);
      set_packed_field(&weight.codes[static_cast<size_t>(r * weight.words_per_row())], 1, c, weight.bits, static_cast<uint32_t>(code));
    }
  }
}

StoredWeight read_fp8_group(const ModuleTensors& tensors, const WeightScheme& scheme, const ActivationScheme& activations) {
  int64_t block_rows = 1, block_columns = kMaxFeatures;
  if (scheme.strategy == Strategy::tensor) block_rows = kMaxFeatures;
  if (scheme.strategy == Strategy::group) block_columns = scheme.group_size;
  if (scheme.strategy == Strategy::block) {
    block_rows = scheme.block_rows;
    block_columns = scheme.block_columns;
  }
  const auto weight = std::make_shared<Fp8Weight>(make_fp8(tensors, "weight_scale", block_rows, block_columns));
  weight->input = activations.kind;
  if (activations.kind == ActivationQuant::Kind::per_tensor) weight->input_scale = tensors.scalar("input_scale");
  return {{{std::shared_ptr<const Fp8Weight>(weight)}}, {}};
}

}  // namespace

void check_compressed_tensors_config(const JsonObject& config) {
  constexpr std::string_view kFormats[] = {"pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision", "dense"};
  const auto check_format = [&](const JsonObject& object) {
    const std::string format = as_text(object, "format");
    if (!format.empty() && std::find(std::begin(kFormats), std::end(kFormats), format) == std::end(kFormats)) {
      fail(ErrorKind::unsupported, "{}.format: compressed-tensors format \"{}\" is not supported", object.path(), printable(format));
    }
  };
  check_format(config);
  if (const Json* transform = config.find("transform_config"); transform && !transform->empty()) {
    fail(ErrorKind::unsupported, "{}.transform_config: transforms are not supported", config.path());
  }
  const JsonObject groups = config.object("config_groups");
  for (const auto& [name, value] : groups.json().items()) {
    const std::string path = fmt::format("{}.{}", groups.path(), printable(name));
    if (value.is_array()) fail(ErrorKind::unsupported, "{}: a preset named by its targets alone is not supported", path);
    const JsonObject group(value, path);
    check_format(group);
    group.texts("targets");
    if (group.has("weights")) parse_weights(group.object("weights"));
    parse_activations(group);
    if (group.has("output_activations")) fail(ErrorKind::unsupported, "{}.output_activations: is not supported", path);
  }
}

StoredWeight read_compressed_tensors(const ModuleTensors& tensors, const JsonObject& config) {
  const JsonObject group = group_of(config, tensors.module());
  const WeightScheme scheme = parse_weights(group.object("weights"));
  const ActivationScheme activations = parse_activations(group);
  if (scheme.is_float) return read_fp8_group(tensors, scheme, activations);

  const auto weight = std::make_shared<GroupedWeight>();
  weight->bits = scheme.bits;
  if (tensors.find("weight_packed")) {
    read_packed_codes(tensors, *weight);
  } else {
    read_byte_codes(tensors, *weight);
  }
  read_scales(tensors, scheme, *weight);
  read_zeros(tensors, scheme, *weight);
  if (const TensorView* index = tensors.find("weight_g_idx")) {
    // All -1: a writer that had no order to store.
    const auto values = values_of<int32_t>(*index);
    const bool empty = index->format == "I32" && std::all_of(values.begin(), values.end(), [](int32_t v) { return v == -1; });
    if (!empty) weight->group_index = tensors.group_index("weight_g_idx", weight->columns, weight->groups());
  }
  if (activations.is_float) tensors.unsupported("integer weights with float activations");
  ActivationQuant activation{activations.kind, activations.bits, 0};
  if (activations.kind == ActivationQuant::Kind::per_tensor) activation.scale = tensors.scalar("input_scale");
  return {{{std::shared_ptr<const GroupedWeight>(weight)}}, activation};
}

}  // namespace frugal::io
