// GPTQ (AutoGPTQ, GPTQModel) and AWQ (AutoAWQ "gemm"): codes packed down the input dimension or across the output one, so
// both are repacked into rows.
#include <array>

#include "io/quantized_readers.h"

namespace frugal::io {
namespace {

using formats::GroupedWeight;

struct GptqConfig {
  int bits = 4;
  int64_t group_size = 128;  // -1: one group
  bool zeros_minus_one = true;
  bool by_gptqmodel = false;
};

GptqConfig parse_gptq(const JsonObject& config) {
  GptqConfig parsed;
  parsed.bits = static_cast<int>(config.integer("bits", 2, 8));
  if (parsed.bits > 4 && parsed.bits != 8) config.fail_at("bits", "must be 2, 3, 4 or 8");
  parsed.group_size = config.integer("group_size", -1, kMaxFeatures);
  if (parsed.group_size == 0) config.fail_at("group_size", "must be -1 or at least 1");
  const std::string format = config.text_or("checkpoint_format", config.text_or("format", "gptq"));
  if (format != "gptq" && format != "gptq_v2") {
    fail(ErrorKind::unsupported, "{}: GPTQ checkpoint_format \"{}\" is not supported (gptq, gptq_v2)", config.path(), printable(format));
  }
  if (config.text_or("pack_dtype", "int32") != "int32") fail(ErrorKind::unsupported, "{}: GPTQ pack_dtype must be int32", config.path());
  if (const Json* dynamic = config.find("dynamic"); dynamic && !dynamic->empty()) {
    fail(ErrorKind::unsupported, "{}.dynamic: settings for each module are not supported", config.path());
  }
  parsed.zeros_minus_one = format == "gptq";
  if (config.has("meta")) {
    const Json* quantizer = config.object("meta").find("quantizer");
    const Json* name = quantizer && quantizer->is_array() && !quantizer->empty() ? &quantizer->front() : quantizer;
    parsed.by_gptqmodel = name && name->is_string() && name->get<std::string>().starts_with("gptqmodel");
  }
  return parsed;
}

// Undoes what version 1 did to the packed zero points of one group: a 1 subtracted in every field. Fields of 2, 4 and 8 bits
// lie inside words, and the sum may carry between them as the subtraction did where a zero point was 0. Fields of 3 bits cross
// words, so the 1 is added to each; but GPTQModel subtracts word by word, and the constants of the first and the third word
// interchanged (its reader adds the same), so its files need that.
void undo_version1(const GptqConfig& config, std::vector<uint32_t>& words, int64_t fields) {
  constexpr std::array<uint32_t, 9> kOnes = {0, 0, 0x55555555u, 0, 0x11111111u, 0, 0, 0, 0x01010101u};
  constexpr std::array<uint32_t, 3> kGptqModelThreeBits = {0x24924924u, 0x92492492u, 0x49249249u};
  if (config.bits == 3 && !config.by_gptqmodel) {
    std::vector<uint32_t> sums(words.size());
    for (int64_t i = 0; i < fields; ++i) set_packed_field(sums.data(), 1, i, 3, (packed_field(words.data(), 1, i, 3) + 1) & 7u);
    words = std::move(sums);
    return;
  }
  for (size_t i = 0; i < words.size(); ++i) words[i] += config.bits == 3 ? kGptqModelThreeBits[i % 3] : kOnes[static_cast<size_t>(config.bits)];
}

// Rows and groups are known; checks that the groups cover the columns.
int64_t group_size_for(const ModuleTensors& tensors, int64_t asked, int64_t columns, int64_t groups) {
  const int64_t size = asked == -1 ? columns : asked;
  if ((columns + size - 1) / size != groups) {
    tensors.refuse("{} groups of scales do not fit {} columns in groups of {}", groups, columns, size);
  }
  return size;
}

// scales [groups, rows] of the file -> [rows, groups]
void transpose_scales(GroupedWeight& weight, const ScaleTable& table, int64_t groups) {
  weight.scale_format = table.format;
  weight.scales.resize(table.values.size());
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t r = 0; r < weight.rows; ++r) weight.scales[static_cast<size_t>(r * groups + g)] = table.values[static_cast<size_t>(g * weight.rows + r)];
  }
}

bool is_in_order(const std::vector<int32_t>& index, int64_t group_size) {
  for (size_t i = 0; i < index.size(); ++i) {
    if (index[i] != static_cast<int64_t>(i) / group_size) return false;
  }
  return true;
}

void mark_symmetric(GroupedWeight& weight) {
  const float middle = static_cast<float>(1 << (weight.bits - 1));
  for (const float zero : weight.zeros) {
    if (zero != middle) return;
  }
  weight.symmetric = true;
  weight.zeros.clear();
}

}  // namespace

void check_gptq_config(const JsonObject& config) { parse_gptq(config); }

StoredWeight read_gptq(const ModuleTensors& tensors, const JsonObject& json) {
  const GptqConfig config = parse_gptq(json);
  const int bits = config.bits;
  const TensorView& packed = tensors.any_matrix("qweight", "I32");
  const auto weight = std::make_shared<GroupedWeight>();
  weight->bits = bits;
  weight->rows = packed.shape[1];
  if (packed.shape[0] * 32 % bits != 0 || packed.shape[0] * 32 / bits > kMaxFeatures)
    tensors.refuse("qweight has {} rows, not whole columns of {} bits", packed.shape[0], bits);
  weight->columns = packed.shape[0] * 32 / bits;
  const int64_t groups = tensors.any_matrix("scales", tensors.at("scales").format).shape[0];
  weight->group_size = group_size_for(tensors, config.group_size, weight->columns, groups);
  transpose_scales(*weight, tensors.scales("scales", groups, weight->rows), groups);

  const int64_t zero_words = packed_words(weight->rows, bits);
  const auto zeros = values_of<uint32_t>(tensors.matrix("qzeros", "I32", groups, zero_words));
  std::vector<uint32_t> row;
  weight->zeros.resize(weight->scales.size());
  for (int64_t g = 0; g < groups; ++g) {
    row.assign(zeros.begin() + g * zero_words, zeros.begin() + (g + 1) * zero_words);
    if (config.zeros_minus_one) undo_version1(config, row, weight->rows);
    for (int64_t r = 0; r < weight->rows; ++r) weight->zeros[static_cast<size_t>(r * groups + g)] = static_cast<float>(packed_field(row.data(), 1, r, bits));
  }
  mark_symmetric(*weight);

  if (tensors.find("g_idx")) {
    weight->group_index = tensors.group_index("g_idx", weight->columns, groups);
    if (is_in_order(weight->group_index, weight->group_size)) weight->group_index.clear();
  }
  const auto words = values_of<uint32_t>(packed);
  const int64_t row_words = weight->words_per_row();
  weight->codes.assign(static_cast<size_t>(weight->rows * row_words), 0);
  for (int64_t c = 0; c < weight->columns; ++c) {
    for (int64_t r = 0; r < weight->rows; ++r) {
      set_packed_field(&weight->codes[static_cast<size_t>(r * row_words)], 1, c, bits, packed_field(&words[static_cast<size_t>(r)], weight->rows, c, bits));
    }
  }
  return {{{std::shared_ptr<const GroupedWeight>(weight)}}, {}};
}

void check_awq_config(const JsonObject& config) {
  config.integer(config.has("w_bit") ? "w_bit" : "bits", 4, 4);
  const char* group_key = config.has("q_group_size") ? "q_group_size" : "group_size";
  if (config.integer(group_key, -1, kMaxFeatures) == 0) config.fail_at(group_key, "must be -1 or at least 1");
  const std::string version = config.text_or("version", config.text_or("format", "gemm"));
  if (version != "gemm" && version != "GEMM") fail(ErrorKind::unsupported, "{}: AWQ version \"{}\" is not supported (gemm)", config.path(), printable(version));
  config.boolean_or("zero_point", true);
}

StoredWeight read_awq(const ModuleTensors& tensors, const JsonObject& config) {
  check_awq_config(config);
  const TensorView& packed = tensors.any_matrix("qweight", "I32");
  const auto weight = std::make_shared<GroupedWeight>();
  weight->bits = 4;
  weight->columns = packed.shape[0];
  weight->rows = packed.shape[1] * 8;
  if (weight->rows > kMaxFeatures) tensors.refuse("{} rows", weight->rows);
  const int64_t groups = tensors.any_matrix("scales", tensors.at("scales").format).shape[0];
  weight->group_size =
      group_size_for(tensors, config.integer(config.has("q_group_size") ? "q_group_size" : "group_size", -1, kMaxFeatures), weight->columns, groups);
  transpose_scales(*weight, tensors.scales("scales", groups, weight->rows), groups);
  const auto zeros = values_of<uint32_t>(tensors.matrix("qzeros", "I32", groups, packed.shape[1]));
  const auto words = values_of<uint32_t>(packed);
  const int64_t row_words = weight->words_per_row();
  weight->zeros.resize(weight->scales.size());
  weight->codes.assign(static_cast<size_t>(weight->rows * row_words), 0);
  // Nibble i of a word holds the row 8 * word + kOrder[i].
  constexpr std::array<int64_t, 8> kOrder = {0, 2, 4, 6, 1, 3, 5, 7};
  for (int64_t w = 0; w < packed.shape[1]; ++w) {
    for (int i = 0; i < 8; ++i) {
      const int64_t row = 8 * w + kOrder[static_cast<size_t>(i)];
      for (int64_t g = 0; g < groups; ++g) {
        weight->zeros[static_cast<size_t>(row * groups + g)] = static_cast<float>(zeros[static_cast<size_t>(g * packed.shape[1] + w)] >> (4 * i) & 15u);
      }
      for (int64_t c = 0; c < weight->columns; ++c) {
        set_packed_field(&weight->codes[static_cast<size_t>(row * row_words)], 1, c, 4, words[static_cast<size_t>(c * packed.shape[1] + w)] >> (4 * i) & 15u);
      }
    }
  }
  mark_symmetric(*weight);
  return {{{std::shared_ptr<const GroupedWeight>(weight)}}, {}};
}

}  // namespace frugal::io
