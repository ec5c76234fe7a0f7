#include "models/gguf_weight.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <cstring>

#include "base/checked.h"
#include "formats/blocks.h"
#include "formats/half.h"
#include "models/row_order.h"

namespace frugal::models {
namespace {

using formats::GroupedWeight;
using nn::LinearKind;

constexpr int64_t kBlock = 32;

struct Exact {
  std::string format, reason;  // one of the two
};

bool is_f16(float value) { return formats::round_to_f16(value) == value; }

Exact grouped_form(const GroupedWeight& weight) {
  const bool bits_fit = weight.bits == 4 || weight.bits == 5 || (weight.bits == 8 && weight.symmetric);
  if (!bits_fit)
    return {"", fmt::format("GGUF has no {}-bit {} integers in groups of {}", weight.bits, weight.symmetric ? "symmetric" : "asymmetric", weight.group_size)};
  if (weight.group_size % kBlock != 0 || weight.columns % kBlock != 0)
    return {"", fmt::format("groups of {} in {} columns are not whole blocks of {}", weight.group_size, weight.columns, kBlock)};
  if (!weight.group_index.empty()) return {"", "GGUF cannot say which group a column belongs to"};
  for (size_t i = 0; i < weight.scales.size(); ++i) {
    if (!is_f16(weight.scales[i])) return {"", fmt::format("scale {} is not an F16 number", weight.scales[i])};
    if (weight.symmetric) continue;
    const float minimum = -weight.zeros[i] * weight.scales[i];
    if (!is_f16(minimum)) return {"", fmt::format("minimum {} (of scale and zero point) is not an F16 number", minimum)};
  }
  if (weight.bits == 8) return {"Q8_0", ""};
  return {fmt::format("Q{}_{}", weight.bits, weight.symmetric ? 0 : 1), ""};
}

// One block of 32 codes.
struct BlockSource {
  const uint8_t* codes;
  uint16_t scale, minimum;  // F16
};

void pack_nibbles(const uint8_t* codes, uint8_t* packed) {
  for (int i = 0; i < kBlock / 2; ++i) packed[i] = static_cast<uint8_t>((codes[i] & 15) | (codes[i + kBlock / 2] & 15) << 4);
}

uint32_t fifth_bits(const uint8_t* codes) {
  uint32_t bits = 0;
  for (int i = 0; i < kBlock; ++i) bits |= static_cast<uint32_t>(codes[i] >> 4 & 1) << i;
  return bits;
}

template <typename Block>
void put(const BlockSource& source, std::byte* target) {
  Block block;
  block.scale = source.scale;
  if constexpr (requires { block.minimum; }) block.minimum = source.minimum;
  if constexpr (requires { block.high; }) block.high = fifth_bits(source.codes);
  if constexpr (Block::kBits == 8) {
    for (int i = 0; i < kBlock; ++i) block.codes[i] = static_cast<int8_t>(source.codes[i] - 128);
  } else {
    pack_nibbles(source.codes, block.codes);
  }
  std::memcpy(target, &block, sizeof block);
}

struct BlockWriter {
  void (*put)(const BlockSource&, std::byte*);
  size_t size;
};

template <typename Block>
constexpr BlockWriter kWriter = {put<Block>, sizeof(Block)};

BlockWriter writer_of(const GroupedWeight& weight) {
  if (weight.bits == 8) return kWriter<formats::BlockQ8_0>;
  if (weight.bits == 5) return weight.symmetric ? kWriter<formats::BlockQ5_0> : kWriter<formats::BlockQ5_1>;
  return weight.symmetric ? kWriter<formats::BlockQ4_0> : kWriter<formats::BlockQ4_1>;
}

void fill_grouped(const GroupedWeight& weight, std::span<std::byte> target) {
  const BlockWriter writer = writer_of(weight);
  std::vector<uint8_t> codes(static_cast<size_t>(weight.columns));
  std::byte* place = target.data();
  for (int64_t row = 0; row < weight.rows; ++row) {
    unpack_row(weight, row, codes.data());
    for (int64_t column = 0; column < weight.columns; column += kBlock) {
      const auto group = static_cast<size_t>(row * weight.groups() + weight.group_of(column));
      const float scale = weight.scales[group];
      const float minimum = weight.symmetric ? 0 : -weight.zeros[group] * scale;
      writer.put({&codes[static_cast<size_t>(column)], formats::float_to_f16(scale), formats::float_to_f16(minimum)}, place);
      place += writer.size;
    }
  }
}

void fill_floats(const nn::Linear& linear, const io::TensorToWrite& tensor, std::span<std::byte> target) {
  const at::NoGradGuard no_grad;
  const formats::Format& format = formats::format_at(tensor.format);
  const at::Tensor values = linear.dense().contiguous();
  format.encode(values.const_data_ptr<float>(), nullptr, target.data(), values.numel());
  if (tensor.format == "F32" || !values.isfinite().all().item<bool>()) return;
  std::vector<float> row(static_cast<size_t>(values.size(1)));
  const size_t row_bytes = target.size() / static_cast<size_t>(values.size(0));
  for (int64_t r = 0; r < values.size(0); ++r) {
    format.decode(&target[static_cast<size_t>(r) * row_bytes], row.data(), values.size(1));
    for (const float value : row) {
      if (!std::isfinite(value)) fail(ErrorKind::invalid_input, "{}: a weight is too large for {}; store floats as BF16 or F32", tensor.name, tensor.format);
    }
  }
}

Exact exact_form(const nn::Linear& linear) {
  if (linear.kinds().size() != 1) return {"", fmt::format("a sum of {} terms", linear.kinds().size())};
  const LinearKind& kind = *linear.kinds().front();
  if (kind.activation().kind != formats::ActivationQuant::Kind::none) return {"", "GGUF cannot say how activations are quantized"};
  if (dynamic_cast<const nn::DenseKind*>(&kind)) return {"float", ""};
  if (const auto* block = dynamic_cast<const nn::BlockKind*>(&kind)) {
    if (block->format().gguf_type >= 0) return {std::string(block->format().id), ""};
  }
  if (const auto* grouped = dynamic_cast<const nn::GroupedKind*>(&kind)) return grouped_form(*grouped->weight());
  return {"", fmt::format("GGUF has no words for a weight of kind {}", kind.describe())};
}

io::TensorToWrite block_tensor(const nn::Linear& linear, const std::string& name, std::string format) {
  const std::shared_ptr<LinearKind>& kind = linear.kinds().front();
  io::TensorToWrite tensor{name, std::move(format), {linear.out_features(), linear.in_features()}, {}, {}, kind};
  if (const auto* block = dynamic_cast<const nn::BlockKind*>(kind.get())) {
    tensor.bytes = block->bytes();
  } else {
    const auto weight = dynamic_cast<const nn::GroupedKind&>(*kind).weight();
    tensor.fill = [weight](std::span<std::byte> target) { fill_grouped(*weight, target); };
  }
  return tensor;
}

void reorder(io::TensorToWrite& tensor, int64_t head_dim) {
  const std::vector<int64_t> order = interleaved_from_split(tensor.shape[0], head_dim);
  tensor.fill = [source = tensor, order](std::span<std::byte> target) {
    if (!source.fill) return reorder_rows(source.bytes, order, target);
    std::vector<std::byte> made(target.size());
    source.fill(made);
    reorder_rows(made, order, target);
  };
  tensor.bytes = {};
}

}  // namespace

io::TensorToWrite float_tensor(const nn::Linear& linear, const std::string& name, const std::string& format) {
  io::TensorToWrite tensor{name, format, {linear.out_features(), linear.in_features()}, {}, {}, {}};
  const auto* dense = dynamic_cast<const nn::DenseKind*>(linear.kinds().front().get());
  if (dense && linear.kinds().size() == 1 && dense->describe() == format) {
    tensor.bytes = {static_cast<const std::byte*>(dense->weight().const_data_ptr()), dense->weight().nbytes()};
    tensor.owner = linear.kinds().front();
  } else {
    tensor.fill = [linear, shape = tensor](std::span<std::byte> target) { fill_floats(linear, shape, target); };
  }
  return tensor;
}

std::string cannot_express_in_gguf(const nn::Linear& linear) {
  const Exact exact = exact_form(linear);
  return exact.reason.empty() ? "" : fmt::format("{}: {}", linear.name(), exact.reason);
}

io::TensorToWrite gguf_tensor(const nn::Linear& linear, const GgufPlace& place) {
  Exact exact = exact_form(linear);
  if (!exact.reason.empty() && !place.expand) fail(ErrorKind::unsupported, "{}: {}", linear.name(), exact.reason);
  const bool blocks = exact.reason.empty() && exact.format != "float";
  io::TensorToWrite tensor = blocks ? block_tensor(linear, place.name, std::move(exact.format)) : float_tensor(linear, place.name, place.float_format);
  if (place.rotary_head_dim > 0) reorder(tensor, place.rotary_head_dim);
  return tensor;
}

std::shared_ptr<const GroupedWeight> grouped_from_blocks(const nn::BlockKind& kind) {
  const formats::Format& format = kind.format();
  if (format.id != "Q4_0" && format.id != "Q5_0" && format.id != "Q8_0") return nullptr;
  auto weight = std::make_shared<GroupedWeight>();
  weight->rows = kind.out_features();
  weight->columns = kind.in_features();
  weight->bits = format.integer.bits;
  weight->group_size = format.integer.group;
  weight->symmetric = true;
  const auto rows = static_cast<size_t>(weight->rows), groups = static_cast<size_t>(weight->groups());
  weight->codes.resize(rows * static_cast<size_t>(weight->words_per_row()));
  weight->scales.resize(rows * groups);
  weight->zeros.assign(rows * groups, static_cast<float>(1 << (weight->bits - 1)));
  std::vector<uint8_t> codes(static_cast<size_t>(weight->columns));
  std::vector<float> minimums(groups);
  const size_t row_bytes = kind.bytes().size() / rows;
  for (size_t row = 0; row < rows; ++row) {
    format.split(&kind.bytes()[row * row_bytes], codes.data(), &weight->scales[row * groups], minimums.data(), weight->columns);
    pack_row(*weight, static_cast<int64_t>(row), codes.data());
  }
  return weight;
}

}  // namespace frugal::models
