// SparseGPT, arXiv 2301.00774 (Frantar and Alistarh, 2023), algorithm 1: columns are settled left to right, dropped or kept, and
// the error of dropping is made good by the columns to the right (the solver is chain/column_sweep.h). The mask is chosen
// adaptively, a block of columns at a time, by the score w^2 / [H^-1]_cc, H^-1 of the columns not yet settled. N:M chooses per
// row and M columns when the sweep reaches them. With bits > 0 the kept weights are rounded in the same sweep (section 3.5,
// "joint sparsification and quantization"), and both errors are fed forward.
//
// As the paper and its public code: blocks of 128, damping 1 %, one threshold for all rows of a block, dead inputs dropped
// first, H of the inputs that the already pruned blocks put out. Different:
//  - The joint mode has groups, each fitted to its updated weights when the sweep reaches it (the public code has one grid per
//    row, from the weights before pruning; here that is group=0). Blocks hold whole groups and whole M.
//  - Among equal scores exactly as many are dropped as the sparsity asks for.
// Cost: 4 in^3 / 3 for the Cholesky and an inverse, once per input, and out in^2 for the sweep of each matrix.
#include "prune/sparsegpt.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numeric>

namespace frugal::prune {
namespace {

// State of one sweep; start_block and settle_row are its steps.
template <typename T>
class Pruner {
 public:
  Pruner(const Tensor& weight, const Tensor& kept, const chain::ErrorFeedback& feedback, const Tensor& dead, const SparseGptOptions& options)
      : options_(options), rows_(weight.size(0)), columns_(weight.size(1)), importance_(feedback.pivot.square().masked_fill(dead, 0).contiguous()) {
    if (kept.defined()) earlier_ = kept.contiguous();
    keep_ = kept.defined() ? kept.clone().contiguous() : at::ones({rows_, columns_}, at::kBool);
    if (!options.grid) return;
    const bool whole_rows = options.grid->group == 0;
    codes_.emplace(whole_rows ? chain::round_to_grid(weight, {}, *options.grid) : chain::GridCodes(*options.grid, rows_, columns_));
  }

  SparseGptResult run(const Tensor& weight, const chain::ErrorFeedback& feedback) {
    chain::SweepSteps<T> steps;
    if (options_.pattern.m == 0) steps.start_block = [this](int64_t begin, int64_t end, const T* targets) { choose_block(begin, end, targets); };
    steps.row = [this](chain::RowSweep<T>& sweep) { settle_row(sweep); };
    const Tensor values = chain::sweep_columns<T>(weight, feedback, block_width(), steps);
    return {values, keep_, std::move(codes_)};
  }

 private:
  // Near options.block, whole groups of the grid and whole M.
  int64_t block_width() const {
    int64_t unit = std::max(options_.pattern.m, 1);
    if (options_.grid && options_.grid->group > 0) unit = std::lcm(unit, options_.grid->width(columns_));
    return std::max(unit, options_.block / unit * unit);
  }

  T score(int64_t row, int64_t column, T target) const {
    if (earlier_.defined() && !earlier_.const_data_ptr<bool>()[row * columns_ + column]) return T(-1);
    return target * target * importance_.const_data_ptr<T>()[column];
  }

  void choose_block(int64_t begin, int64_t end, const T* targets) {
    const int64_t width = end - begin, count = rows_ * width;
    std::vector<T> scores(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) scores[static_cast<size_t>(i)] = score(i / width, begin + i % width, targets[i]);
    Tensor chosen = keep_.slice(1, begin, end).contiguous();
    const auto drop = static_cast<int64_t>(std::floor(options_.pattern.sparsity * static_cast<double>(count) + 1e-9));
    drop_lowest(scores.data(), chosen.mutable_data_ptr<bool>(), count, drop);
    keep_.slice(1, begin, end).copy_(chosen);
  }

  void choose_group(const chain::RowSweep<T>& sweep, int64_t begin, bool* keep) const {
    const int64_t count = std::min<int64_t>(options_.pattern.m, columns_ - begin);
    std::vector<T> scores(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) scores[static_cast<size_t>(i)] = score(sweep.row, begin + i, sweep.target(begin + i));
    drop_lowest(scores.data(), keep + begin, count, count - options_.pattern.n);
  }

  // With an N:M pattern the mask of a grid's group is not known yet when the group begins: all its weights count.
  void fit_grid(const chain::RowSweep<T>& sweep, int64_t begin, const bool* keep) {
    const int64_t width = options_.grid->width(columns_), count = std::min(width, columns_ - begin);
    const T* targets = sweep.targets() + (begin - sweep.begin);
    const std::vector<float> values(targets, targets + count);
    codes_->grid(sweep.row, begin / width) = chain::fit_group(values.data(), keep + begin, count, *options_.grid);
  }

  void settle_row(chain::RowSweep<T>& sweep) {
    bool* keep = keep_.mutable_data_ptr<bool>() + sweep.row * columns_;
    for (int64_t c = sweep.begin; c < sweep.end; ++c) {
      if (options_.grid && options_.grid->group > 0 && c % options_.grid->width(columns_) == 0) fit_grid(sweep, c, keep);
      if (options_.pattern.m > 0 && c % options_.pattern.m == 0) choose_group(sweep, c, keep);
      T value = sweep.target(c);
      if (options_.grid) {
        const chain::GroupGrid grid = codes_->grid(sweep.row, c / options_.grid->width(columns_));
        const T code = chain::encode(value, grid, options_.grid->max_code());
        codes_->codes[static_cast<size_t>(sweep.row * columns_ + c)] = static_cast<uint8_t>(code);
        value = chain::decode(code, grid);
      }
      sweep.settle(c, keep[c] ? value : T(0));
    }
  }

  const SparseGptOptions& options_;
  int64_t rows_, columns_;
  Tensor importance_;  // [in]
  Tensor earlier_;     // bool [out, in], or undefined
  Tensor keep_;        // bool [out, in]
  std::optional<chain::GridCodes> codes_;
};

void run(chain::BlockContext& context, const Options& options) {
  SparseGptOptions settings{.pattern = read_pattern(options), .block = options.integer("block"), .grid = std::nullopt};
  if (options.integer("bits") > 0) settings.grid = chain::grid_spec(options);
  Tensor hessian, dead;
  chain::ErrorFeedback feedback;
  for (chain::Matrix& matrix : context.matrices()) {
    const Tensor& current = matrix.statistics().hessian;
    if (!hessian.is_same(current)) {
      hessian = current;
      dead = hessian.diagonal() <= 0;
      feedback = chain::error_feedback(hessian, options.number("damping"), at::kFloat);
    }
    SparseGptResult result = sparsegpt(matrix.weight, matrix.mask, feedback, dead, settings);
    if (!result.codes) {
      matrix.store_masked(result.values, result.kept, settings.pattern.n, settings.pattern.m);
      continue;
    }
    matrix.mask = result.kept;
    matrix.n = settings.pattern.n;
    matrix.m = settings.pattern.m;
    matrix.store_grouped(result.codes->pack());
  }
}

}  // namespace

SparseGptResult sparsegpt(const Tensor& weight, const Tensor& kept, const chain::ErrorFeedback& feedback, const Tensor& dead, const SparseGptOptions& options) {
  chain::require_finite(weight, "weight");
  if (weight.scalar_type() == at::kDouble) return Pruner<double>(weight, kept, feedback, dead, options).run(weight, feedback);
  return Pruner<float>(weight, kept, feedback, dead, options).run(weight, feedback);
}

chain::StepRow sparsegpt_row() {
  chain::StepRow row;
  row.id = "sparsegpt";
  row.title = "SparseGPT";
  row.leaf = "prune";
  row.arxiv = "2301.00774";
  row.summary = "drops weights column by column and lets the later columns make good, through the inputs' Hessian; can quantize as well";
  row.options = pattern_options();
  row.options.push_back(integer_option("bits", 0, 0, 8, "round the kept weights to this many bits in the same sweep; 0: do not"));
  row.options.push_back(integer_option("group", 64, 0, 1 << 20, "with bits: input columns that share a scale; 0: the whole row"));
  row.options.push_back(boolean_option("symmetric", false, "with bits: no zero point"));
  row.options.push_back(integer_option("block", 128, 1, 1 << 16, "columns whose mask is chosen together"));
  row.options.push_back(number_option("damping", 0.01, 0, 10, "share of the Hessian's mean diagonal that is added to it"));
  row.function = {.effect = chain::StepEffect::mask,
                  .needs = [](const Options&) -> unsigned { return chain::kNeedsHessian; },
                  .run_block = run,
                  .sequential = true,
                  .quantizes = [](const Options& options) { return options.integer("bits") > 0; }};
  row.claims = {{.statement = "half of the weights dropped: perplexity under magnitude pruning",
                 .model = "S",
                 .baseline = {"magnitude:sparsity=0.5"},
                 .method = {"sparsegpt:sparsity=0.5"}},
                {.statement = "half dropped and the rest in 4 bits, jointly: perplexity under 3-bit GPTQ, which takes as much space",
                 .model = "S",
                 .baseline = {"gptq:bits=3,group=64"},
                 .method = {"sparsegpt:sparsity=0.5,bits=4,group=64"}}};
  return row;
}

}  // namespace frugal::prune
