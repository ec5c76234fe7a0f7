#include <algorithm>
#include <vector>

#include "base/error.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/work_queue.h"

namespace frugal::kernels {
namespace {

// Tokens that are multiplied with a matrix before it is read again from memory: their codes stay in the L2/L3 cache.
constexpr int64_t kTokenBlock = 256;
// Bytes of weights (times tiles of tokens) in a chunk of work: about 10 us.
constexpr int64_t kChunkBytes = 48 << 10;

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
  if (panels == 0) return;
  for (int64_t token = 0; token < activations.tokens(); token += kTokenBlock) {
    const int64_t token_end = std::min(activations.tokens(), token + kTokenBlock);
    const int64_t tiles = (token_end - token + 3) / 4;
    const int64_t chunk = std::max<int64_t>(1, kChunkBytes / std::max<int64_t>(1, bytes / panels * tiles));
    for_each_chunk(panels, chunk, bytes * tiles > kChunkBytes / 2, [&](int64_t begin, int64_t end) {
      for (size_t i = 0; i < arguments.size(); ++i) {
        PackedArguments own = arguments[i];
        own.panel_begin = std::max<int64_t>(0, begin - first_panel[i]);
        own.panel_end = std::min(end, first_panel[i + 1]) - first_panel[i];
        own.token_begin = token;
        own.token_end = token_end;
        if (own.panel_begin < own.panel_end) table.matmul_packed(own);
      }
    });
  }
}

void matmul_packed(const PackedMatrix& matrix, const QuantizedActivations& activations, float* out, int64_t out_stride) {
  const PackedProduct product{&matrix, out, out_stride};
  matmul_packed(std::span(&product, 1), activations);
}

}  // namespace frugal::kernels
