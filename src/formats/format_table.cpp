#include "formats/blocks.h"
#include "formats/codec.h"
#include "formats/format.h"
#include "formats/plain.h"

#include <array>
#include <vector>

#include "base/checked.h"
#include "base/options.h"

namespace frugal::formats {

namespace {

constexpr int kNoGguf = -1;

// A type whose bytes are only carried, or read as integers.
constexpr Format sized_row(std::string_view id, int gguf_type, std::string_view safetensors, int64_t bytes) {
  return {id, gguf_type, safetensors, 1, bytes, nullptr, nullptr, {}, nullptr};
}

template <PlainType Type>
constexpr Format plain_row(std::string_view id, int gguf_type, std::string_view safetensors, int64_t bytes) {
  return {id, gguf_type, safetensors, 1, bytes, decode_plain<Type>, encode_plain<Type>, {}, nullptr};
}

template <typename Block>
constexpr Format block_row(std::string_view id, int gguf_type) {
  Format row{id, gguf_type, "", Block::kWeights, static_cast<int64_t>(sizeof(Block)), decode<Block>, nullptr, {}, nullptr};
  if constexpr (Block::kEncodes) row.encode = encode<Block>;
  if constexpr (Block::kBits > 0) {
    row.integer = {Block::kBits, Block::kGroup};
    row.split = split<Block>;
  }
  return row;
}

// GGUF's type ids are those of ggml; the removed ones (4, 5, 31-33, 36-38) have no row. Neither has Q8_1 (9), which is an
// activation format of kernels: no file holds it, and ggml and the gguf package disagree about its size.
constexpr auto kTable = std::to_array<Format>({
    plain_row<PlainType::f32>("F32", 0, "F32", 4),
    plain_row<PlainType::f16>("F16", 1, "F16", 2),
    plain_row<PlainType::bf16>("BF16", 30, "BF16", 2),
    plain_row<PlainType::f64>("F64", 28, "F64", 8),
    plain_row<PlainType::f8e4m3>("F8_E4M3", kNoGguf, "F8_E4M3", 1),
    plain_row<PlainType::f8e5m2>("F8_E5M2", kNoGguf, "F8_E5M2", 1),
    Format{"F8_E8M0", kNoGguf, "F8_E8M0", 1, 1, decode_plain<PlainType::f8e8m0>, nullptr, {}, nullptr},
    sized_row("I8", 24, "I8", 1),
    sized_row("I16", 25, "I16", 2),
    sized_row("I32", 26, "I32", 4),
    sized_row("I64", 27, "I64", 8),
    sized_row("U8", kNoGguf, "U8", 1),
    sized_row("U16", kNoGguf, "U16", 2),
    sized_row("U32", kNoGguf, "U32", 4),
    sized_row("U64", kNoGguf, "U64", 8),
    sized_row("BOOL", kNoGguf, "BOOL", 1),
    block_row<BlockQ4_0>("Q4_0", 2),
    block_row<BlockQ4_1>("Q4_1", 3),
    block_row<BlockQ5_0>("Q5_0", 6),
    block_row<BlockQ5_1>("Q5_1", 7),
    block_row<BlockQ8_0>("Q8_0", 8),
    block_row<BlockQ2_K>("Q2_K", 10),
    block_row<BlockQ3_K>("Q3_K", 11),
    block_row<BlockQ4_K>("Q4_K", 12),
    block_row<BlockQ5_K>("Q5_K", 13),
    block_row<BlockQ6_K>("Q6_K", 14),
    block_row<BlockQ8_K>("Q8_K", 15),
    block_row<BlockIQ4_NL>("IQ4_NL", 20),
    block_row<BlockIQ4_XS>("IQ4_XS", 23),
    block_row<BlockIQ2_XXS>("IQ2_XXS", 16),
    block_row<BlockIQ2_XS>("IQ2_XS", 17),
    block_row<BlockIQ2_S>("IQ2_S", 22),
    block_row<BlockIQ3_XXS>("IQ3_XXS", 18),
    block_row<BlockIQ3_S>("IQ3_S", 21),
    block_row<BlockIQ1_S>("IQ1_S", 19),
    block_row<BlockIQ1_M>("IQ1_M", 29),
    block_row<BlockTQ1_0>("TQ1_0", 34),
    block_row<BlockTQ2_0>("TQ2_0", 35),
    block_row<BlockMXFP4>("MXFP4", 39),
    block_row<BlockNVFP4>("NVFP4", 40),
});

}  // namespace

std::span<const Format> format_table() { return kTable; }

const Format* find_format(std::string_view id) {
  for (const Format& format : kTable) {
    if (format.id == id) return &format;
  }
  return nullptr;
}

const Format& format_at(std::string_view id) {
  if (const Format* format = find_format(id)) return *format;
  std::vector<std::string> ids;
  for (const Format& format : kTable) ids.emplace_back(format.id);
  fail(ErrorKind::unsupported, "weight format \"{}\" is not known{}", printable(id), did_you_mean(id, ids));
}

const Format* format_of_gguf_type(uint32_t type) {
  for (const Format& format : kTable) {
    if (format.gguf_type >= 0 && static_cast<uint32_t>(format.gguf_type) == type) return &format;
  }
  return nullptr;
}

const Format* format_of_safetensors(std::string_view dtype) {
  if (dtype.empty()) return nullptr;
  for (const Format& format : kTable) {
    if (format.safetensors == dtype) return &format;
  }
  return nullptr;
}

uint64_t bytes_of(const Format& format, uint64_t count) {
  const uint64_t block = static_cast<uint64_t>(format.block_weights);
  if (count % block != 0) {
    fail(ErrorKind::corrupt_file, "{} holds whole blocks of {} weights, {} weights are not a multiple of it", format.id, block, count);
  }
  return checked_mul(count / block, static_cast<uint64_t>(format.block_bytes), format.id);
}

}  // namespace frugal::formats
