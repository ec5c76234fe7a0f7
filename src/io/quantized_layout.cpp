#include "io/quantized_layout.h"

#include <algorithm>

#include "formats/format.h"
#include "formats/half.h"
#include "io/quantized_readers.h"

namespace frugal::io {
namespace {

// Which layout the tensors of a module have, by its leading tensor.
struct Marker {
  std::string_view part;
  std::string_view method;  // quant_method that has it
};
constexpr Marker kMarkers[] = {
    {"weight_packed", "compressed-tensors"},
    {"weight_scale", "compressed-tensors"},
    {"weight_scale", "fp8"},
    {"weight_scale_inv", "fp8"},
    {"qweight", "gptq"},
    {"qweight", "awq"},
    {"weight.quant_state.bitsandbytes__nf4", "bitsandbytes"},
    {"weight.quant_state.bitsandbytes__fp4", "bitsandbytes"},
    {"SCB", "bitsandbytes"},
};
constexpr std::string_view kOwnMark = ".frugal.";

struct Method {
  std::string name;  // "" for none
  std::optional<JsonObject> config;
};

Method method_of(const Json& config, const std::string& path) {
  const auto it = config.is_object() ? config.find("quantization_config") : config.end();
  if (!config.is_object() || it == config.end() || it->is_null()) return {};
  JsonObject quantization(*it, path + ".quantization_config");
  std::string name = quantization.text_or("quant_method", quantization.text_or("method", ""));
  if (name.empty() && (quantization.has("load_in_4bit") || quantization.has("load_in_8bit"))) name = "bitsandbytes";
  return {std::move(name), std::move(quantization)};
}

const Json* own_description(const Checkpoint& checkpoint, std::string_view module) {
  if (!checkpoint.manifest.is_object()) return nullptr;
  const auto modules = checkpoint.manifest.find("modules");
  if (modules == checkpoint.manifest.end() || !modules->is_object()) return nullptr;
  const auto it = modules->find(module);
  return it == modules->end() ? nullptr : &*it;
}

}  // namespace

void check_quantization_config(const Json& config, const std::string& path) {
  const Method method = method_of(config, path);
  if (!method.config) return;
  if (method.name == "compressed-tensors") return check_compressed_tensors_config(*method.config);
  if (method.name == "gptq") return check_gptq_config(*method.config);
  if (method.name == "awq") return check_awq_config(*method.config);
  if (method.name == "fp8" || method.name == "bitsandbytes") return;
  fail(ErrorKind::unsupported, "{}.quant_method: \"{}\" is not supported (compressed-tensors, gptq, awq, fp8, bitsandbytes)", method.config->path(),
       printable(method.name));
}

namespace {

StoredWeight read_by_method(const ModuleTensors& tensors, const Method& method) {
  if (method.name == "compressed-tensors") return read_compressed_tensors(tensors, *method.config);
  if (method.name == "gptq") return read_gptq(tensors, *method.config);
  if (method.name == "awq") return read_awq(tensors, *method.config);
  if (method.name == "fp8") return read_fp8(tensors, *method.config);
  return read_bitsandbytes(tensors);
}

// Ranges inside the structs, which are the formats' to know. (Sparse weights are checked as they are built.)
void validate_grouped(const StoredTerm& term, const std::string& name) {
  if (const auto* grouped = std::get_if<std::shared_ptr<const formats::GroupedWeight>>(&term.value)) formats::validate(**grouped, name);
  if (const auto* factors = std::get_if<LowRankWeight>(&term.value)) {
    validate_grouped(*factors->first, name);
    validate_grouped(*factors->second, name);
  }
}

}  // namespace

std::optional<StoredWeight> read_quantized(const Checkpoint& checkpoint, std::string_view module) {
  if (checkpoint.container != Container::huggingface) return std::nullopt;
  const ModuleTensors tensors(checkpoint, std::string(module));
  StoredWeight weight;
  if (const Json* description = own_description(checkpoint, module)) {
    weight = read_own_layout(tensors, JsonObject(*description, checkpoint.path + "/frugal.json.modules." + printable(module, 200)));
  } else {
    const Method method = method_of(checkpoint.config, checkpoint.path + "/config.json");
    const bool marked =
        std::any_of(std::begin(kMarkers), std::end(kMarkers), [&](const Marker& marker) { return marker.method == method.name && tensors.find(marker.part); });
    if (!marked) {
      for (const Marker& marker : kMarkers) {
        if (tensors.find(marker.part)) tensors.refuse("has a tensor {}, but config.json asks for quant_method \"{}\"", marker.part, printable(method.name));
      }
      return std::nullopt;
    }
    weight = read_by_method(tensors, method);
  }
  for (const StoredTerm& term : weight.terms) validate_grouped(term, fmt::format("{}: {}", checkpoint.path, printable(module, 200)));
  return weight;
}

std::set<std::string> quantized_modules(const Checkpoint& checkpoint) {
  std::set<std::string> modules;
  if (checkpoint.container != Container::huggingface) return modules;
  for (const auto& [name, view] : checkpoint.tensors) {
    if (const size_t at = name.find(kOwnMark); at != name.npos) modules.insert(name.substr(0, at));
    for (const Marker& marker : kMarkers) {
      const size_t size = marker.part.size() + 1;
      if (name.size() > size && name.ends_with(marker.part) && name[name.size() - size] == '.') modules.insert(name.substr(0, name.size() - size));
    }
  }
  return modules;
}

namespace {

template <typename Weight>
int64_t size_of_side(const Weight& weight, bool rows) {
  return rows ? weight.rows : weight.columns;
}

int64_t side_of(const StoredTerm& term, bool rows) {
  return std::visit(
      [&](const auto& held) -> int64_t {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, BlockWeight>) {
          return size_of_side(held, rows);
        } else if constexpr (std::is_same_v<T, LowRankWeight>) {
          return side_of(rows ? *held.second : *held.first, rows);
        } else {
          return size_of_side(*held, rows);
        }
      },
      term.value);
}

void decode_row_of(const BlockWeight& weight, int64_t row, float* values) {
  const formats::Format& format = formats::format_at(weight.format);
  const int64_t row_bytes = weight.columns / format.block_weights * format.block_bytes;
  format.decode(weight.bytes.data() + row * row_bytes, values, weight.columns);
}

void decode_row_of(const Fp8Weight& weight, int64_t row, float* values) {
  const float* scales = &weight.scales[static_cast<size_t>(row / weight.block_rows * weight.scale_columns())];
  for (int64_t c = 0; c < weight.columns; ++c) {
    values[c] = formats::f8e4m3_to_float(static_cast<uint8_t>(weight.codes[static_cast<size_t>(row * weight.columns + c)])) * scales[c / weight.block_columns];
  }
}

void decode_row_of(const CodebookWeight& weight, int64_t row, float* values) {
  for (int64_t c = 0; c < weight.columns; ++c) {
    const int64_t i = row * weight.columns + c;
    const uint8_t pair = weight.codes[static_cast<size_t>(i / 2)];
    values[c] = weight.table[i % 2 == 0 ? pair >> 4 : pair & 15] * weight.scales[static_cast<size_t>(i / weight.block)];
  }
}

}  // namespace

int64_t rows_of(const StoredTerm& term) { return side_of(term, true); }
int64_t columns_of(const StoredTerm& term) { return side_of(term, false); }

void decode_row(const StoredTerm& term, int64_t row, float* values) {
  std::visit(
      [&](const auto& held) {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, BlockWeight>) {
          decode_row_of(held, row, values);
        } else if constexpr (std::is_same_v<T, LowRankWeight>) {
          fail(ErrorKind::internal, "a product of factors has no rows to decode");
        } else if constexpr (std::is_same_v<T, std::shared_ptr<const Fp8Weight>> || std::is_same_v<T, std::shared_ptr<const CodebookWeight>>) {
          decode_row_of(*held, row, values);
        } else {
          formats::decode_row(*held, row, values);
        }
      },
      term.value);
}

}  // namespace frugal::io
