#include <algorithm>
#include <vector>

#include "base/error.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/work_queue.h"

namespace frugal::kernels {
namespace {

// Few tokens: bytes of weights (times tiles of tokens) in a chunk of work, about 10 us.
constexpr int64_t kFewTokens = 16;
constexpr int64_t kChunkBytes = 48 << 10;
// Many tokens: a chunk is up to kPanels panels times as many tokens as a part of the L2 cache holds; neighbouring chunks share
// their panels. At least kLeastTokens, for which a panel is unpacked once.
constexpr int64_t kPanels = 8;
constexpr int64_t kTokenBytes = 96 << 10;
constexpr int64_t kLeastTokens = 32;

int64_t tokens_of_chunk(int64_t tokens, int64_t padded_columns) {
  if (tokens <= kFewTokens) return tokens;
  const int64_t bytes = padded_columns + padded_columns / 32 * 8;  // codes, scales and sums
  const int64_t most = std::max(kTokenBytes / bytes, kLeastTokens), chunks = (tokens + most - 1) / most;
  return ((tokens + chunks - 1) / chunks + 7) / 8 * 8;
}

PackedArguments arguments_of(const PackedProduct& product, const ActivationView& view) {
  const PackedMatrix& matrix = *product.matrix;
  const PackedMatrix::Layout& layout = matrix.layout();
  const int64_t units_per_block = layout.block / 16;
  PackedArguments a;
  a.panels = matrix.data();
  a.bits = matrix.bits();
  a.block = layout.block;
  a.scale_form = static_cast<int>(layout.scale_form);
  a.has_minimums = layout.has_minimums;
  a.rows = matrix.rows();
  a.panel_bytes = layout.panel_bytes;
  a.groups = layout.groups;
  a.groups_per_super = layout.groups_per_super;
  a.blocks = layout.units / units_per_block;
  a.blocks_per_group = layout.units_per_group / units_per_block;
  a.padded_columns = view.padded_columns;
  a.codes = view.codes;
  a.scales = view.scales;
  a.sums = layout.block == 32 ? view.sums : view.half_sums;
  a.out = product.out;
  a.out_stride = product.out_stride;
  return a;
}

void check(const PackedProduct& product, const QuantizedActivations& activations, const KernelTable& table) {
  if (product.matrix == nullptr || product.matrix->empty()) fail(ErrorKind::invalid_input, "packed product: the matrix is empty");
  const PackedMatrix& matrix = *product.matrix;
  if (matrix.columns() != activations.columns()) {
    fail(ErrorKind::invalid_input, "packed product: the matrix has {} columns, the activations {}", matrix.columns(), activations.columns());
  }
  if (product.out_stride < matrix.rows()) {
    fail(ErrorKind::invalid_input, "packed product: out stride {} for {} rows", product.out_stride, matrix.rows());
  }
  if (matrix.layout().lane_rows != table.lane_rows) {
    fail(ErrorKind::internal, "packed product: the matrix was packed for {} rows per vector, {} has {}", matrix.layout().lane_rows, to_string(table.isa),
         table.lane_rows);
  }
}

}  // namespace

void matmul_packed(std::span<const PackedProduct> products, const QuantizedActivations& activations) {
  const KernelTable& table = kernels();
  std::vector<PackedArguments> arguments;
  std::vector<int64_t> first_panel{0};
  int64_t bytes = 0;
  for (const PackedProduct& product : products) {
    check(product, activations, table);
    arguments.push_back(arguments_of(product, activations.view()));
    const int64_t panels = (product.matrix->rows() + 15) / 16;
    first_panel.push_back(first_panel.back() + panels);
    bytes += panels * arguments.back().panel_bytes;
  }
  const int64_t panels = first_panel.back();
  if (panels == 0 || activations.tokens() == 0) return;
  const int64_t tokens = activations.tokens(), chunk_tokens = tokens_of_chunk(tokens, activations.view().padded_columns);
  const int64_t tiles = (chunk_tokens + 3) / 4, blocks = (tokens + chunk_tokens - 1) / chunk_tokens;
  const int64_t chunk_panels = tokens > kFewTokens ? std::clamp<int64_t>(panels * blocks / (16 * team_size()), 1, kPanels)
                                                   : std::max<int64_t>(1, kChunkBytes / std::max<int64_t>(1, bytes / panels * tiles));
  const int64_t chunks = (panels + chunk_panels - 1) / chunk_panels * blocks;
  for_each_chunk(chunks, 1, bytes * tiles * blocks > kChunkBytes / 2, [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t begin = chunk / blocks * chunk_panels, end = begin + chunk_panels, token = chunk % blocks * chunk_tokens;
      for (size_t i = 0; i < arguments.size(); ++i) {
        PackedArguments own = arguments[i];
        own.panel_begin = std::max<int64_t>(0, begin - first_panel[i]);
        own.panel_end = std::min(end, first_panel[i + 1]) - first_panel[i];
        own.prefetch = tokens <= kFewTokens;
        own.token_begin = token;
        own.token_end = std::min(tokens, token + chunk_tokens);
        if (own.panel_begin < own.panel_end) table.matmul_packed(own);
      }
    }
  });
}

void matmul_packed(const PackedMatrix& matrix, const QuantizedActivations& activations, float* out, int64_t out_stride) {
  const PackedProduct product{&matrix, out, out_stride};
  matmul_packed(std::span(&product, 1), activations);
}

}  // namespace frugal::kernels
