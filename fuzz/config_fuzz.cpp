// Any text as config.json of a small quantized checkpoint: the checks of a checkpoint and the readers of every quantized
// layout, over tensors that exist whatever the text asks for. An object with "general.architecture" is read as the keys of a
// GGUF file instead.
#include <array>
#include <cstdint>

#include "base/error.h"
#include "io/checkpoint.h"
#include "io/hyperparameters.h"
#include "io/quantized_layout.h"

namespace {

using namespace frugal;

struct Tensor {
  const char* name;
  const char* format;
  std::vector<int64_t> shape;
  size_t bytes;
};

// The leading tensors of all layouts, 64 inputs and 8 outputs.
const std::array<Tensor, 14> kTensors = {{
    {"m.weight_packed", "I32", {8, 8}, 256},
    {"m.weight_shape", "I64", {2}, 16},
    {"m.weight_scale", "F16", {8, 2}, 32},
    {"m.weight_zero_point", "I32", {1, 2}, 8},
    {"m.weight_g_idx", "I32", {64}, 256},
    {"m.input_scale", "F32", {1}, 4},
    {"g.qweight", "I32", {8, 8}, 256},
    {"g.qzeros", "I32", {2, 1}, 8},
    {"g.scales", "F16", {2, 8}, 32},
    {"b.weight", "I8", {8, 64}, 512},
    {"b.weight_scale", "F32", {8, 1}, 32},
    {"f.weight", "F8_E4M3", {8, 64}, 512},
    {"f.weight_scale", "F32", {8, 1}, 32},
    {"model.embed_tokens.weight", "F16", {8, 64}, 1024},
}};

io::Checkpoint make_checkpoint() {
  static std::array<uint64_t, 128> zeros{};
  static const std::array<int64_t, 2> shape = {8, 64};
  io::Checkpoint checkpoint;
  checkpoint.container = io::Container::huggingface;
  checkpoint.path = "fuzz";
  for (const Tensor& tensor : kTensors) {
    const bool is_shape = std::string_view(tensor.name).ends_with("weight_shape");
    checkpoint.tensors[tensor.name] = {tensor.name, tensor.format, tensor.shape,
                                       is_shape ? std::as_bytes(std::span(shape)) : std::as_bytes(std::span(zeros)).first(tensor.bytes)};
  }
  return checkpoint;
}

void check_as_gguf(const Json& keys) {
  io::Checkpoint checkpoint;
  checkpoint.container = io::Container::gguf;
  for (const auto& [key, value] : keys.items()) {
    if (value.is_string()) checkpoint.metadata.set(key, value.get<std::string>());
    if (value.is_boolean()) checkpoint.metadata.set(key, value.get<bool>());
    if (value.is_number_integer()) checkpoint.metadata.set(key, value.get<int64_t>());
    if (value.is_number_float()) checkpoint.metadata.set(key, value.get<double>());
    if (value.is_array() && !value.empty() && value[0].is_string()) {
      std::vector<std::string> items;
      for (const Json& item : value) items.push_back(item.is_string() ? item.get<std::string>() : "");
      checkpoint.metadata.set(key, std::move(items));
    } else if (value.is_array()) {
      std::vector<int64_t> items;
      for (const Json& item : value) items.push_back(item.is_number_integer() ? item.get<int64_t>() : 0);
      checkpoint.metadata.set(key, std::move(items));
    }
  }
  io::check_hyperparameters(checkpoint);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static io::Checkpoint checkpoint = make_checkpoint();
  try {
    const Json json = parse_json({reinterpret_cast<const char*>(data), size}, "fuzz", {size_t{1} << 20, 64});
    if (json.is_object() && json.contains("general.architecture")) {
      check_as_gguf(json);
      return 0;
    }
    checkpoint.config = json;
    checkpoint.manifest = json;
    io::check_hyperparameters(checkpoint);
    io::check_quantization_config(checkpoint.config, "fuzz");
  } catch (const Error&) {}
  for (const char* module : {"m", "g", "b", "f"}) {
    try {
      const auto weight = io::read_quantized(checkpoint, module);
      std::array<float, 64> row;
      if (weight && weight->terms.size() == 1 && io::columns_of(weight->terms[0]) == 64) {
        for (int64_t r = 0; r < io::rows_of(weight->terms[0]); ++r) io::decode_row(weight->terms[0], r, row.data());
      }
    } catch (const Error&) {}
  }
  return 0;
}
