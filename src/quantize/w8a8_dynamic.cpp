// Naive W8A8: symmetric integers, one scale per output channel for weights, and one per token for activations, found when the
// layer runs ("dynamic"). The baseline of the weight-and-activation methods (SmoothQuant's table 2, ZeroQuant's "W8A8").
//
// Reads no calibration. Cost: one pass over the weights.
#include "quantize/w8a8_dynamic.h"

#include "chain/grid.h"

namespace frugal::quantize {
namespace {

void run(chain::BlockContext& context, const Options& options) {
  const chain::GridSpec spec{.bits = static_cast<int>(options.integer("bits")), .group = 0, .symmetric = true};
  const formats::ActivationQuant activation{.kind = formats::ActivationQuant::Kind::per_token, .bits = static_cast<int>(options.integer("activation_bits"))};
  for (chain::Matrix& matrix : context.matrices()) {
    matrix.store_grouped(chain::round_to_grid(matrix.weight, matrix.mask, spec).pack(), activation);
  }
}

}  // namespace

chain::StepRow w8a8_dynamic_row() {
  chain::StepRow row;
  row.id = "w8a8-dynamic";
  row.title = "W8A8, dynamic";
  row.leaf = "quantize";
  row.arxiv = "baseline";
  row.summary = "int8 weights per output channel, int8 activations per token";
  row.options = {integer_option("bits", 8, 2, 8, "bits of a weight"), integer_option("activation_bits", 8, 2, 8, "bits of an activation")};
  row.function = {.effect = chain::StepEffect::quantize, .run_block = run};
  row.reference = "baseline";
  return row;
}

}  // namespace frugal::quantize
