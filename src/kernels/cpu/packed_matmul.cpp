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

int64_t panels_of(const PackedArguments& a) { return (a.rows + 15) / 16; }

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
  int64_t panels = 0, bytes = 0;
  for (const PackedProduct& product : products) {
    check(product, activations, table);
    arguments.push_back(arguments_of(product, activations.view()));
    panels += panels_of(arguments.back());
    bytes += panels_of(arguments.back()) * arguments.back().panel_bytes;
  }
  const int64_t tokens = activations.tokens();
  if (panels == 0 || tokens == 0) return;
  const int64_t chunk_tokens = tokens_of_chunk(tokens, activations.view().padded_columns);
  const int64_t tiles = (chunk_tokens + 3) / 4, blocks = (tokens + chunk_tokens - 1) / chunk_tokens;
  const int64_t chunk_panels = tokens > kFewTokens ? std::clamp<int64_t>(panels * blocks / (16 * team_size()), 1, kPanels)
                                                   : std::max<int64_t>(1, kChunkBytes / std::max<int64_t>(1, bytes / panels * tiles));
  // A member's share: of each matrix the panels that it packed (parallel_for splits in the same way), so that where memory belongs
  // to sockets it reads its own.
  const bool parallel = bytes * tiles * blocks > kChunkBytes / 2;
  const int shares = parallel ? team_size() : 1;
  struct Chunk {
    const PackedArguments* product;
    int64_t panel_begin, panel_end, token;
  };
  std::vector<Chunk> chunks;
  std::vector<int64_t> share_ends;
  for (int share = 0; share < shares; ++share) {
    for (const PackedArguments& product : arguments) {
      const int64_t end = panels_of(product) * (share + 1) / shares;
      for (int64_t panel = panels_of(product) * share / shares; panel < end; panel += chunk_panels) {
        for (int64_t token = 0; token < tokens; token += chunk_tokens) chunks.push_back({&product, panel, std::min(panel + chunk_panels, end), token});
      }
    }
    share_ends.push_back(static_cast<int64_t>(chunks.size()));
  }
  for_each_in_shares(share_ends, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Chunk& chunk = chunks[static_cast<size_t>(i)];
      PackedArguments own = *chunk.product;
      own.panel_begin = chunk.panel_begin;
      own.panel_end = chunk.panel_end;
      own.token_begin = chunk.token;
      own.token_end = std::min(tokens, chunk.token + chunk_tokens);
      own.prefetch = tokens <= kFewTokens;
      table.matmul_packed(own);
    }
  });
}

void matmul_packed(const PackedMatrix& matrix, const QuantizedActivations& activations, float* out, int64_t out_stride) {
  const PackedProduct product{&matrix, out, out_stride};
  matmul_packed(std::span(&product, 1), activations);
}

}  // namespace frugal::kernels
