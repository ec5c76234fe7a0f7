// GPTQ, arXiv 2210.17323 (Frantar et al., 2022): columns are rounded left to right, and the error of each is fed into the
// columns not yet rounded (equations 2 and 3, in the Cholesky form of section 3.3), blocks of 128 columns at a time.
// chain/column_sweep.h holds the solver.
//
// As the paper and its public code: H = X^T X of the inputs that the already compressed blocks put out, damping of 1 % of the
// mean diagonal, grids from the extremes of the group's updated weights when the sweep reaches it, one grid per row when
// group=0. Different:
//  - Groups see every earlier column, also those of the same block of 128 (the public code reads the weights as of the
//    block's start): blocks end where groups end.
//  - order=activation settles columns by falling input energy with the grids fixed beforehand from the original weights
//    ("static groups"), so that the file needs no index of groups.
//  - A dead column (input always zero) is rounded to nearest; the public code sets it to zero. A short calibration text is
//    no proof that an input stays zero.
//  - The inputs of all matrices of a block are taken before any of them is rounded (the paper's default; "true sequential"
//    came later).
// Cost: 4 in^3 / 3 for the Cholesky and an inverse, once per input, and out in^2 for the sweep of each matrix.
#include "quantize/gptq.h"

#include <ATen/ATen.h>

#include <type_traits>

namespace frugal::quantize {
namespace {

constexpr int64_t kBlock = 128;

// Columns per block: whole groups, near 128.
int64_t block_width(const chain::GridSpec& spec, bool static_grids) {
  if (static_grids || spec.group == 0) return kBlock;
  return spec.group >= kBlock ? spec.group : kBlock / spec.group * spec.group;
}

template <typename T>
void fit(chain::GridCodes& codes, const chain::RowSweep<T>& sweep, int64_t column, const bool* keep) {
  const int64_t count = std::min(codes.spec.width(codes.columns), codes.columns - column);
  const T* targets = sweep.targets() + (column - sweep.begin);
  const std::vector<float> values(targets, targets + count);
  codes.grid(sweep.row, column / codes.spec.width(codes.columns)) = chain::fit_group(values.data(), keep ? keep + column : nullptr, count, codes.spec);
}

template <typename T>
chain::GridCodes round_columns(const Tensor& weight, const Tensor& kept, const GptqInputs& inputs, const GptqOptions& options) {
  const bool static_grids = inputs.order.defined() || options.grid.group == 0;
  const Tensor mask = kept.defined() ? kept.contiguous() : Tensor();
  const bool* keep = mask.defined() ? mask.const_data_ptr<bool>() : nullptr;
  const int64_t* order = inputs.order.defined() ? inputs.order.const_data_ptr<int64_t>() : nullptr;
  chain::GridCodes codes = static_grids ? chain::round_to_grid(weight, mask, options.grid) : chain::GridCodes(options.grid, weight.size(0), weight.size(1));
  const int64_t columns = codes.columns, width = options.grid.width(columns);
  chain::SweepSteps<T> steps;
  steps.row = [&](chain::RowSweep<T>& sweep) {
    const bool* keep_row = keep ? keep + sweep.row * columns : nullptr;
    for (int64_t k = sweep.begin; k < sweep.end; ++k) {
      const int64_t column = order ? order[k] : k;
      if (!static_grids && k % width == 0) fit(codes, sweep, k, keep_row);
      const chain::GroupGrid grid = codes.grid(sweep.row, column / width);
      const T code = chain::encode(sweep.target(k), grid, options.grid.max_code());
      codes.codes[static_cast<size_t>(sweep.row * columns + column)] = static_cast<uint8_t>(code);
      sweep.settle(k, keep_row && !keep_row[column] ? T(0) : chain::decode(code, grid));
    }
  };
  const Tensor ordered = order ? weight.index_select(1, inputs.order) : weight;
  chain::sweep_columns<T>(ordered, inputs.feedback, block_width(options.grid, static_grids), steps);
  return codes;
}

void run(chain::BlockContext& context, const Options& options) {
  GptqOptions settings;
  settings.grid = chain::grid_spec(options);
  settings.grid.search = options.boolean("search");
  settings.damping = options.number("damping");
  settings.activation_order = options.text("order") == "activation";
  Tensor hessian;
  GptqInputs inputs;
  for (chain::Matrix& matrix : context.matrices()) {
    const Tensor& current = matrix.statistics().hessian;
    if (!hessian.is_same(current)) {
      hessian = current;
      inputs = gptq_inputs(hessian, settings, at::kFloat);
    }
    matrix.store_grouped(gptq(matrix.weight, matrix.mask, inputs, settings).pack());
  }
}

}  // namespace

GptqInputs gptq_inputs(const Tensor& hessian, const GptqOptions& options, at::ScalarType type) {
  GptqInputs inputs;
  if (options.activation_order) inputs.order = hessian.diagonal().argsort(/*stable=*/true, /*dim=*/0, /*descending=*/true).contiguous();
  const Tensor ordered = options.activation_order ? hessian.index_select(0, inputs.order).index_select(1, inputs.order) : hessian;
  inputs.feedback = chain::error_feedback(ordered, options.damping, type);
  return inputs;
}

chain::GridCodes gptq(const Tensor& weight, const Tensor& kept, const GptqInputs& inputs, const GptqOptions& options) {
  chain::require_finite(weight, "weight");
  return weight.scalar_type() == at::kDouble ? round_columns<double>(weight, kept, inputs, options) : round_columns<float>(weight, kept, inputs, options);
}

chain::StepRow gptq_row() {
  chain::StepRow row;
  row.id = "gptq";
  row.title = "GPTQ";
  row.leaf = "quantize";
  row.arxiv = "2210.17323";
  row.summary = "rounds column by column and feeds each error into the later columns through the inputs' Hessian";
  row.options = chain::grid_options(4);
  row.options.push_back(number_option("damping", 0.01, 0, 10, "share of the Hessian's mean diagonal that is added to it"));
  row.options.push_back(choice_option("order", "none", {"none", "activation"}, "columns left to right, or by falling input energy"));
  row.options.push_back(boolean_option("search", false, "ranges by least squared error instead of the extremes"));
  row.function = {
      .effect = chain::StepEffect::quantize, .needs = [](const Options&) -> unsigned { return chain::kNeedsHessian; }, .run_block = run, .sequential = true};
  row.claims = {{.statement = "3 bits in groups of 64: perplexity well under round to nearest",
                 .model = "S",
                 .baseline = {"rtn:bits=3,group=64"},
                 .method = {"gptq:bits=3,group=64"}}};
  return row;
}

}  // namespace frugal::quantize
