// FP8 (DeepSeek's block scales, vLLM's tensor scales), and bitsandbytes: NF4, FP4 and int8.
#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "formats/format.h"
#include "io/quantized_readers.h"

namespace frugal::io {

Fp8Weight make_fp8(const ModuleTensors& tensors, const std::string& scale_part, int64_t block_rows, int64_t block_columns) {
  const TensorView& codes = tensors.any_matrix("weight", "F8_E4M3");
  Fp8Weight weight;
  weight.rows = codes.shape[0];
  weight.columns = codes.shape[1];
  weight.block_rows = std::min(block_rows, weight.rows);
  weight.block_columns = std::min(block_columns, weight.columns);
  weight.codes = codes.bytes;
  ScaleTable table = tensors.scales(scale_part, (weight.rows + weight.block_rows - 1) / weight.block_rows, weight.scale_columns());
  weight.scale_format = std::move(table.format);
  weight.scales = std::move(table.values);
  return weight;
}

StoredWeight read_fp8(const ModuleTensors& tensors, const JsonObject& config) {
  int64_t block_rows = kMaxFeatures, block_columns = kMaxFeatures;
  if (config.has("weight_block_size")) {
    const std::vector<double> block = config.numbers("weight_block_size");
    const bool good = block.size() == 2 && std::all_of(block.begin(), block.end(), [](double v) { return v >= 1 && v <= kMaxFeatures && v == std::floor(v); });
    if (!good) config.fail_at("weight_block_size", "must be two integers of at least 1");
    block_rows = static_cast<int64_t>(block[0]);
    block_columns = static_cast<int64_t>(block[1]);
  }
  const bool inverse = tensors.find("weight_scale_inv") != nullptr;
  auto weight = std::make_shared<Fp8Weight>(make_fp8(tensors, inverse ? "weight_scale_inv" : "weight_scale", block_rows, block_columns));
  const std::string scheme = config.text_or("activation_scheme", "dynamic");
  using Kind = formats::ActivationQuant::Kind;
  weight->input = scheme == "static" ? Kind::per_tensor : Kind::per_token;
  if (scheme == "static") weight->input_scale = tensors.scalar("input_scale");
  return {{{std::shared_ptr<const Fp8Weight>(std::move(weight))}}, {}};
}

namespace {

std::vector<float> all_floats(const ModuleTensors& tensors, std::string_view part, uint64_t count) {
  const TensorView& view = tensors.at(part);
  if (view.format != "F32" || view.bytes.size() / sizeof(float) != count) tensors.fail_shape(view, fmt::format("F32 with {} items", count));
  const auto values = values_of<float>(view);
  return {values.begin(), values.end()};
}

// absmax of the blocks: plain, or 8-bit codes into a table with scales of their own ("double quantization").
std::vector<float> read_absmax(const ModuleTensors& tensors, const JsonObject& state, uint64_t blocks) {
  if (!tensors.find("weight.nested_absmax")) return all_floats(tensors, "weight.absmax", blocks);
  const TensorView& codes = tensors.at("weight.absmax");
  if (codes.format != "U8" || codes.bytes.size() != blocks) tensors.fail_shape(codes, fmt::format("U8 with {} items", blocks));
  const auto block = static_cast<uint64_t>(state.integer("nested_blocksize", 1, 1 << 20));
  const double offset = state.number("nested_offset", -1e30, 1e30);
  const std::vector<float> table = all_floats(tensors, "weight.nested_quant_map", 256);
  const std::vector<float> scales = all_floats(tensors, "weight.nested_absmax", (blocks + block - 1) / block);
  std::vector<float> values(blocks);
  for (uint64_t i = 0; i < blocks; ++i) {
    values[i] = table[static_cast<size_t>(codes.bytes[i])] * scales[i / block] + static_cast<float>(offset);
  }
  return values;
}

StoredWeight read_bitsandbytes_int8(const ModuleTensors& tensors) {
  const TensorView& values = tensors.any_matrix("weight", "I8");
  const auto weight = std::make_shared<formats::GroupedWeight>();
  weight->rows = values.shape[0];
  weight->columns = weight->group_size = values.shape[1];
  weight->bits = 8;
  weight->symmetric = true;
  weight->scale_format = "F32";
  weight->scales = all_floats(tensors, "SCB", static_cast<uint64_t>(weight->rows));
  for (float& scale : weight->scales) scale /= 127.0f;
  weight->codes.assign(static_cast<size_t>(weight->rows * weight->words_per_row()), 0);
  for (int64_t r = 0; r < weight->rows; ++r) {
    for (int64_t c = 0; c < weight->columns; ++c) {
      const auto code = static_cast<uint32_t>(values.bytes[static_cast<size_t>(r * weight->columns + c)]) ^ 0x80u;
      set_packed_field(&weight->codes[static_cast<size_t>(r * weight->words_per_row())], 1, c, 8, code);
    }
  }
  return {{{std::shared_ptr<const formats::GroupedWeight>(weight)}}, {}};
}

}  // namespace

StoredWeight read_bitsandbytes(const ModuleTensors& tensors) {
  if (tensors.find("SCB")) return read_bitsandbytes_int8(tensors);
  const TensorView* packed_state = tensors.find("weight.quant_state.bitsandbytes__nf4");
  if (!packed_state) packed_state = &tensors.at("weight.quant_state.bitsandbytes__fp4");
  const std::string_view text(reinterpret_cast<const char*>(packed_state->bytes.data()), packed_state->bytes.size());
  const Json json = parse_json(text, tensors.checkpoint().path + ": " + packed_state->name, {65536, 8});
  const JsonObject state(json, packed_state->name);
  const auto weight = std::make_shared<CodebookWeight>();
  const std::vector<double> shape = state.numbers("shape");
  const bool good = shape.size() == 2 && std::all_of(shape.begin(), shape.end(), [](double v) { return v >= 1 && v <= kMaxFeatures && v == std::floor(v); });
  if (!good) state.fail_at("shape", "must be two integers of at least 1");
  weight->rows = static_cast<int64_t>(shape[0]);
  weight->columns = static_cast<int64_t>(shape[1]);
  weight->block = state.integer("blocksize", 1, 1 << 20);
  const uint64_t count = checked_product(std::array{weight->rows, weight->columns}, packed_state->name);
  const TensorView& codes = tensors.at("weight");
  if (codes.format != "U8" || codes.bytes.size() != (count + 1) / 2) tensors.fail_shape(codes, fmt::format("U8 with {} bytes", (count + 1) / 2));
  const std::vector<float> table = all_floats(tensors, "weight.quant_map", 16);
  std::copy(table.begin(), table.end(), weight->table.begin());
  const auto block = static_cast<uint64_t>(weight->block);
  weight->scales = read_absmax(tensors, state, (count + block - 1) / block);
  weight->codes.resize(codes.bytes.size());
  std::memcpy(weight->codes.data(), codes.bytes.data(), codes.bytes.size());
  return {{{std::shared_ptr<const CodebookWeight>(weight)}}, {}};
}

}  // namespace frugal::io
