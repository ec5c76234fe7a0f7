#include <algorithm>

#include "base/error.h"
#include "formats/format.h"
#include "io/module_tensors.h"
#include "io/quantized_readers.h"

namespace frugal::io {
namespace {

using formats::ActivationQuant;
using formats::GroupedWeight;

bool is_float_format(const std::string& format) { return format == "F32" || format == "F16" || format == "BF16"; }

const BlockWeight* plain_of(const StoredWeight& weight) {
  if (weight.terms.size() != 1 || weight.activation.kind != ActivationQuant::Kind::none) return nullptr;
  const auto* block = std::get_if<BlockWeight>(&weight.terms[0].value);
  return block && is_float_format(block->format) ? block : nullptr;
}

std::string cannot_express(const GroupedWeight& weight) {
  if (weight.float_zeros) return "zero points that are not integers";
  if (!weight.group_index.empty()) return "columns whose groups are not in order (compressed-tensors 0.20 no longer reads them)";
  if (weight.columns % weight.group_size != 0) return fmt::format("groups of {} that do not divide {} columns", weight.group_size, weight.columns);
  if (!is_float_format(weight.scale_format)) return fmt::format("scales in {}", weight.scale_format);
  return "";
}

Json activations_json(ActivationQuant::Kind kind, int bits, const char* type) {
  if (kind == ActivationQuant::Kind::none) return nullptr;
  const bool dynamic = kind == ActivationQuant::Kind::per_token;
  return {{"num_bits", bits}, {"type", type}, {"symmetric", true}, {"strategy", dynamic ? "token" : "tensor"}, {"group_size", nullptr}, {"dynamic", dynamic}};
}

Json scheme_json(Json weights, Json activations, const char* format) {
  return {{"weights", std::move(weights)}, {"input_activations", std::move(activations)}, {"output_activations", nullptr}, {"format", format}};
}

TensorToWrite floats(const std::string& name, const std::string& format, std::vector<int64_t> shape, std::shared_ptr<const void> owner,
                     const std::vector<float>& values) {
  return {name,
          format,
          std::move(shape),
          [owner, &values, format](std::span<std::byte> target) {
            formats::format_at(format).encode(values.data(), nullptr, target.data(), static_cast<int64_t>(values.size()));
          },
          {},
          {}};
}

void add_input_scale(const std::string& module, float scale, std::vector<TensorToWrite>& tensors) {
  tensors.push_back(owned_tensor<float>(module + ".input_scale", "F32", {1}, {scale}));
}

// Codes as signed bytes, when the file must hold one byte for each weight.
void fill_bytes(const GroupedWeight& weight, std::span<std::byte> target) {
  auto* bytes = reinterpret_cast<uint8_t*>(target.data());
  const auto middle = static_cast<uint8_t>(1u << (weight.bits - 1));
  for (int64_t r = 0; r < weight.rows; ++r) {
    uint8_t* row = bytes + r * weight.columns;
    formats::unpack_row(weight, r, row);
    for (int64_t c = 0; c < weight.columns; ++c) row[c] = static_cast<uint8_t>(row[c] - middle);
  }
}

void fill_zero_bytes(const GroupedWeight& weight, std::span<std::byte> target) {
  const float middle = static_cast<float>(1 << (weight.bits - 1));
  for (size_t i = 0; i < weight.zeros.size(); ++i) target[i] = static_cast<std::byte>(static_cast<int8_t>(weight.zeros[i] - middle));
}

Json plan_grouped(const std::shared_ptr<const GroupedWeight>& weight, const ActivationQuant& activation, const std::string& module,
                  std::vector<TensorToWrite>& tensors) {
  const bool bytes = weight->bits == 8 && activation.kind != ActivationQuant::Kind::none;  // W8A8: int-quantized
  const int64_t groups = weight->groups();
  if (bytes) {
    tensors.push_back({module + ".weight", "I8", {weight->rows, weight->columns}, [weight](std::span<std::byte> t) { fill_bytes(*weight, t); }, {}, {}});
  } else {
    tensors.push_back({module + ".weight_packed", "I32", {weight->rows, weight->words_per_row()}, {}, std::as_bytes(std::span(weight->codes)), weight});
    tensors.push_back(owned_tensor<int64_t>(module + ".weight_shape", "I64", {2}, {weight->rows, weight->columns}));
  }
  tensors.push_back(floats(module + ".weight_scale", weight->scale_format, {weight->rows, groups}, weight, weight->scales));
  if (!weight->symmetric && bytes) {
    tensors.push_back({module + ".weight_zero_point", "I8", {weight->rows, groups}, [weight](std::span<std::byte> t) { fill_zero_bytes(*weight, t); }, {}, {}});
  } else if (!weight->symmetric) {
    tensors.push_back({module + ".weight_zero_point",
                       "I32",
                       {packed_words(weight->rows, weight->bits), groups},
                       [weight](std::span<std::byte> target) {
                         const std::vector<uint32_t> words = formats::pack_zeros(*weight);
                         std::memcpy(target.data(), words.data(), target.size());
                       },
                       {},
                       {}});
  }
  if (activation.kind == ActivationQuant::Kind::per_tensor) add_input_scale(module, activation.scale, tensors);
  const bool channel = groups == 1;
  Json weights = {{"num_bits", weight->bits}, {"type", "int"}, {"symmetric", weight->symmetric}, {"strategy", channel ? "channel" : "group"}};
  weights["group_size"] = channel ? Json(nullptr) : Json(weight->group_size);
  weights["dynamic"] = false;
  return scheme_json(std::move(weights), activations_json(activation.kind, activation.bits, "int"), bytes ? "int-quantized" : "pack-quantized");
}

Json plan_fp8(const std::shared_ptr<const Fp8Weight>& weight, const std::string& module, std::vector<TensorToWrite>& tensors) {
  const int64_t scale_rows = (weight->rows + weight->block_rows - 1) / weight->block_rows;
  const bool tensor = scale_rows == 1 && weight->scale_columns() == 1 && weight->rows > 1;
  const bool channel = weight->block_rows == 1 && weight->scale_columns() == 1;
  tensors.push_back({module + ".weight", "F8_E4M3", {weight->rows, weight->columns}, {}, weight->codes, weight});
  std::vector<int64_t> shape = {scale_rows, weight->scale_columns()};
  if (tensor) shape = {1};
  tensors.push_back(floats(module + ".weight_scale", weight->scale_format, std::move(shape), weight, weight->scales));
  if (weight->input == ActivationQuant::Kind::per_tensor) add_input_scale(module, weight->input_scale, tensors);
  Json weights = {{"num_bits", 8}, {"type", "float"}, {"symmetric", true}, {"strategy", tensor ? "tensor" : channel ? "channel" : "block"}, {"dynamic", false}};
  if (!tensor && !channel) weights["block_structure"] = {weight->block_rows, weight->block_columns};
  return scheme_json(std::move(weights), activations_json(weight->input, 8, "float"), "float-quantized");
}

}  // namespace

std::string cannot_express_in_compressed_tensors(const StoredWeight& weight) {
  if (weight.terms.size() != 1) return fmt::format("a sum of {} terms", weight.terms.size());
  return std::visit(
      [&](const auto& held) -> std::string {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, BlockWeight>) {
          if (!is_float_format(held.format)) return fmt::format("blocks of {}", held.format);
          return weight.activation.kind == ActivationQuant::Kind::none ? "" : "quantized activations of a float weight";
        } else if constexpr (std::is_same_v<T, std::shared_ptr<const GroupedWeight>>) {
          return cannot_express(*held);
        } else if constexpr (std::is_same_v<T, std::shared_ptr<const Fp8Weight>>) {
          return weight.activation.kind == ActivationQuant::Kind::none ? "" : "integer activations of a float8 weight";
        } else if constexpr (std::is_same_v<T, std::shared_ptr<const formats::SparseWeight>>) {
          return "a sparse weight";
        } else if constexpr (std::is_same_v<T, LowRankWeight>) {
          return "a product of factors";
        } else {
          return "codes into a table";
        }
      },
      weight.terms[0].value);
}

void QuantizedWriter::add(const std::string& module, StoredWeight weight) {
  if (weight.terms.empty()) fail(ErrorKind::internal, "{}: no terms", module);
  if (const BlockWeight* plain = plain_of(weight)) {
    tensors_.push_back({module + ".weight", plain->format, {plain->rows, plain->columns}, {}, plain->bytes, plain->owner});
    ignore_.push_back(module);
    return;
  }
  if (own_layout_only_ || !cannot_express_in_compressed_tensors(weight).empty()) {
    modules_[module] = describe_own_layout(weight, module, tensors_);
    ignore_.push_back(module);
    return;
  }
  const auto& value = weight.terms[0].value;
  const auto* grouped = std::get_if<std::shared_ptr<const GroupedWeight>>(&value);
  Json scheme =
      grouped ? plan_grouped(*grouped, weight.activation, module, tensors_) : plan_fp8(std::get<std::shared_ptr<const Fp8Weight>>(value), module, tensors_);
  const auto group = std::find_if(groups_.begin(), groups_.end(), [&](const Group& g) { return g.scheme == scheme; });
  if (group == groups_.end()) {
    groups_.push_back({std::move(scheme), {module}});
  } else {
    group->targets.push_back(module);
  }
}

Json QuantizedWriter::quantization_config() const {
  if (groups_.empty()) return nullptr;
  Json groups = Json::object();
  for (size_t i = 0; i < groups_.size(); ++i) {
    Json group = groups_[i].scheme;
    // One scheme is said in the usual words; several need the names.
    group["targets"] = groups_.size() == 1 ? std::vector<std::string>{"Linear"} : groups_[i].targets;
    groups[fmt::format("group_{}", i)] = std::move(group);
  }
  const bool mixed = std::any_of(groups_.begin(), groups_.end(), [&](const Group& g) { return g.scheme["format"] != groups_[0].scheme["format"]; });
  Json config = {{"config_groups", std::move(groups)},  {"format", mixed ? Json("mixed-precision") : groups_[0].scheme["format"]},
                 {"global_compression_ratio", nullptr}, {"ignore", ignore_},
                 {"kv_cache_scheme", nullptr},          {"quant_method", "compressed-tensors"},
                 {"quantization_status", "compressed"}};
  // transformers 5.24 makes room for unpacked zero points only, unless it expands the weights as it loads them (which it can
  // where all have one scheme).
  const Json& weights = groups_[0].scheme["weights"];
  if (groups_.size() == 1 && groups_[0].scheme["format"] == "pack-quantized" && weights["symmetric"] == false) config["dequantize"] = true;
  return config;
}

}  // namespace frugal::io
