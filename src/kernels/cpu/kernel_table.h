// The seam between the checked functions of this folder and their bodies, which are compiled once per instruction set: plain
// structs of pointers and sizes, already validated, and one table of functions per set. All strides are resolved (never 0) and
// in elements.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/isa.h"

namespace frugal::kernels {

struct ActivationView;
struct AttentionShape;
struct GateGradientRows;
struct GateRows;
enum class FloatType : uint8_t;
enum class GateKind : uint8_t;
enum class CacheType : uint8_t;

// packed_matrix.h. A range of panels of one matrix times a range of tokens.
struct PackedArguments {
  const std::byte* panels = nullptr;
  int bits = 4;
  int block = 32;
  int scale_form = 0;  // ScaleForm
  bool has_minimums = false;
  int64_t rows = 0;
  int64_t panel_bytes = 0;
  int64_t groups = 0;
  int64_t groups_per_super = 0;
  int64_t blocks = 0;  // of a row
  int64_t blocks_per_group = 0;
  int64_t panel_begin = 0, panel_end = 0;
  int64_t token_begin = 0, token_end = 0;
  bool prefetch = false;  // the panels come from memory
  int64_t padded_columns = 0;
  const int8_t* codes = nullptr;
  const float* scales = nullptr;
  const float* sums = nullptr;  // per `block` columns
  float* out = nullptr;         // [tokens, rows]
  int64_t out_stride = 0;
};

struct QuantizeArguments {
  const float* x = nullptr;
  int64_t stride = 0;
  int64_t columns = 0;
  int64_t padded_columns = 0;
  int mode = 0;  // ActivationScale
  float tensor_scale = 0;
  int8_t* codes = nullptr;
  float* scales = nullptr;
  float* sums = nullptr;
  float* half_sums = nullptr;
};

struct NormArguments {
  const float* x = nullptr;
  int64_t stride = 0;
  float* out = nullptr;
  int64_t out_stride = 0;
  int64_t columns = 0;
  const float* weight = nullptr;
  const float* bias = nullptr;
  float eps = 0;
  float weight_offset = 0;
};

// norm.h: what rms_norm's backward reads and writes. weight_gradient [columns] is added to; null: not wanted.
struct NormGradientArguments {
  const float* x = nullptr;         // [rows, columns], contiguous, as all of these
  const float* gradient = nullptr;  // by the output
  float* x_gradient = nullptr;
  const float* weight = nullptr;
  int64_t columns = 0;
  float eps = 0;
  float weight_offset = 0;
};

// gemm.h. Panels of rows (of a) or columns (of b): [depth][gemm_rows or gemm_columns] each, filled up with zeros.
struct GemmPackArguments {
  const void* data = nullptr;
  FloatType type{};
  FloatType precision{};  // what the numbers are rounded to
  int64_t outer = 0;      // stride from one row of a (column of b) to the next
  int64_t inner = 0;      // along k
  int64_t count = 0;      // of rows or columns
  int64_t depth = 0;
  bool columns = false;  // panels of b
  float* panels = nullptr;
};
struct GemmBlockArguments {
  const float* a_panels = nullptr;
  const float* b_panels = nullptr;
  int64_t m = 0, n = 0, depth = 0;
  float* c = nullptr;
  int64_t c_stride = 0;
  float alpha = 1;
  bool accumulate = false;
};

struct RopeArguments {
  float* x = nullptr;
  int64_t stride = 0;
  const int64_t* positions = nullptr;
  const float* cos = nullptr;
  const float* sin = nullptr;
  int64_t heads = 0;
  int64_t head_dim = 0;
  int64_t rotary_dim = 0;
};

struct FloatArguments {
  const void* weight = nullptr;
  FloatType type{};
  int64_t weight_stride = 0;
  int64_t columns = 0;
  const float* x = nullptr;
  int64_t x_stride = 0;
  int64_t tokens = 0;
  float* out = nullptr;
  int64_t out_stride = 0;
  bool accumulate = false;
};

// One (sequence, block of rows, kv head) over a range of cache entries.
struct AttentionArguments {
  const AttentionShape* shape = nullptr;  // strides resolved
  const void* const* key_pages = nullptr;
  const void* const* value_pages = nullptr;
  int64_t key_block_bytes = 0, value_block_bytes = 0;  // of a kv head in a page
  int64_t kv_head = 0;
  const float* q = nullptr;  // first row of the block, first head of the group
  int64_t q_stride = 0;
  const int64_t* positions = nullptr;  // [rows]
  int64_t rows = 0;
  int64_t entry_begin = 0, entry_end = 0;  // a part of one chunk; begin is a multiple of kAttentionTile
  float* scratch = nullptr;                // see Attention::scratch_floats, 64-byte aligned
  int64_t padded_value = 0;                // value_dim, rounded up to kAttentionLanes
  // Result, per query (row-major: row, then head of the group): running maximum, sum of exponentials, and sum of
  // exponential * value with rows of padded_value floats. Overwritten.
  float* maximum = nullptr;
  float* sum = nullptr;
  float* value = nullptr;
};

inline constexpr int64_t kAttentionTile = 32;    // cache entries
inline constexpr int64_t kAttentionChunk = 512;  // cache entries, a multiple of the tile
inline constexpr int64_t kAttentionLanes = 16;   // rows of results are padded to a multiple of this

struct KernelTable {
  Isa isa;
  int lane_rows;      // of packed matrices: rows per vector of 4 columns
  bool signed_bytes;  // 8-bit weights are packed as code - 128
  void (*matmul_packed)(const PackedArguments& arguments);
  void (*quantize)(const QuantizeArguments& arguments, int64_t token_begin, int64_t token_end);
  void (*attention)(const AttentionArguments& arguments);
  // total <- merge(total, part), each of `queries` states as in AttentionArguments.
  void (*attention_merge)(float* maximum, float* sum, float* value, const float* part_maximum, const float* part_sum, const float* part_value, int64_t queries,
                          int64_t padded_value_dim);
  void (*rms_norm)(const NormArguments& arguments, int64_t row_begin, int64_t row_end);
  void (*layer_norm)(const NormArguments& arguments, int64_t row_begin, int64_t row_end);
  void (*rope_halves)(const RopeArguments& arguments, int64_t row_begin, int64_t row_end);
  void (*rope_interleaved)(const RopeArguments& arguments, int64_t row_begin, int64_t row_end);
  void (*gated_activation)(const GateRows& rows, GateKind kind, int64_t row_begin, int64_t row_end);
  void (*rms_norm_backward)(const NormGradientArguments& arguments, float* weight_gradient, int64_t row_begin, int64_t row_end);
  void (*gated_activation_backward)(const GateGradientRows& rows, GateKind kind, int64_t row_begin, int64_t row_end);
  int gemm_rows, gemm_columns;  // of a register tile
  void (*gemm_pack)(const GemmPackArguments& arguments, int64_t panel_begin, int64_t panel_end);
  void (*gemm_block)(const GemmBlockArguments& arguments);
  void (*softmax)(const float* x, float* out, int64_t columns, int64_t row_begin, int64_t row_end);
  void (*log_softmax)(const float* x, float* out, int64_t columns, int64_t row_begin, int64_t row_end);
  void (*exponential)(const float* x, float* out, int64_t count);
  void (*to_f16)(const float* values, uint16_t* halves, int64_t count);
  void (*matmul_float)(const FloatArguments& arguments, int64_t row_begin, int64_t row_end);
  // Machine limits: each returns something that depends on the work, so that the loop stays.
  float (*read_memory)(const std::byte* data, int64_t bytes);
  int64_t (*integer_loop)(int64_t iterations, bool four_bit);  // multiply-adds done
  int64_t (*float_loop)(int64_t iterations);                   // multiply-adds done
};

const KernelTable& kernels();                     // of active_isa(), or the one that a test put in its place
void override_kernels(const KernelTable* table);  // for tests (SIMDe); nullptr: back to active_isa()

namespace scalar {
extern const KernelTable kTable;
}
namespace avx2 {
extern const KernelTable kTable;
}
namespace avx512 {
extern const KernelTable kTable;
}

}  // namespace frugal::kernels
