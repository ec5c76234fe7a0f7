// Round to nearest: what every other quantizer is measured against. Each group of `group` input columns of a row gets a scale
// and, unless symmetric, an integer zero point from its smallest and largest weight; each weight becomes the nearest code.
//
// Reads no calibration. Cost: one pass over the weights; with search=true about 40.
#include "quantize/rtn.h"

#include "chain/grid.h"

namespace frugal::quantize {
namespace {

void run(chain::BlockContext& context, const Options& options) {
  chain::GridSpec spec = chain::grid_spec(options);
  spec.search = options.boolean("search");
  for (chain::Matrix& matrix : context.matrices()) {
    matrix.store_grouped(chain::round_to_grid(matrix.weight, matrix.mask, spec).pack());
  }
}

}  // namespace

chain::StepRow rtn_row() {
  chain::StepRow row;
  row.id = "rtn";
  row.title = "Round to nearest";
  row.leaf = "quantize";
  row.arxiv = "baseline";
  row.summary = "each weight to the nearest of 2^bits levels between its group's extremes";
  row.options = chain::grid_options(4);
  row.options.push_back(boolean_option("search", false, "ranges by least squared error instead of the extremes"));
  row.function = {.effect = chain::StepEffect::quantize, .run_block = run};
  row.reference = "baseline";
  return row;
}

}  // namespace frugal::quantize
