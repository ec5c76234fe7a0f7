// SpQR, arXiv 2306.03078 (Dettmers et al., 2023): GPTQ's sweep in very small groups, whose scales and zero points are quantized
// a second time, plus the few weights that rounding would hurt most, kept in 16 bits as a sparse term (algorithm 1). A weight's
// sensitivity is (w - rounded)^2 / [H^-1]_jj, H^-1 of the columns not yet settled. When the sweep reaches a group, a weight whose
// absence lowers the group's summed sensitivities by more than tau, the grid being fitted without it (leave one out), does not
// take part in the final fit. When the sweep reaches a weight, it is an outlier if its own sensitivity is above tau. The solver
// is chain/column_sweep.h.
//
// As the paper and its public code: tau = threshold times the mean of w^2 / [H^-1]_jj, 3 bits, groups of 16 columns, scales and
// (real) zero points each on a second 3-bit grid from the extremes of 16 neighbouring rows, leave-one-out fits before that
// second rounding, threshold 0.2. Different:
//  - The file stores scales and zero points as float16, their values on the second grid: the quality is the paper's, the size is
//    not. For b bits, groups of g and a share r of outliers the paper's layout takes b + 6/g + 64/(16 g) + 32 r bits per weight
//    (3.6 + 32 r by default), this one b + 32/g + 1 + 64/in + 16 r (6 + 16 r): 2 - 0.6 for the statistics, 1 for the outliers'
//    bitmap. SmolLM2-135M has 1.9 % outliers: 6.4 bits here where the paper's layout takes 4.2. zeros=integer has b bits for a
//    zero point instead of 16 (5.2 + 16 r); the public code calls it round_zero.
//  - The sparse term holds what the codes leave of an outlier, in float16, since a Linear is a sum and a real zero point has
//    no code for 0.
//  - Ranges contain 0, a group of zeros stays zero and has no part in the second grid; the mean above is of squares instead of
//    variances (a single row has none).
//  - Columns are settled left to right; the public script's order by input energy would need an index of groups.
//  - Factors of a low-rank product have no outliers: a factor is one kind, not a sum.
// Masked weights stay masked: both terms are then sparse.
// Cost: gptq's, and up to 3 more roundings of every weight for the fits that leave one out.
#include "quantize/spqr.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "base/team.h"
#include "formats/half.h"

namespace frugal::quantize {
namespace {

// A grid before anything of it is rounded; scale 0: all values are 0.
struct RealGrid {
  double scale = 0, zero = 0;
};

// One group of one row: what its weights should be, how much their errors cost, and which of them count.
struct Group {
  std::vector<double> values;
  const double* pivots = nullptr;  // [values]
  std::vector<char> counts;        // [values]
};

constexpr size_t kNone = static_cast<size_t>(-1);

RealGrid fit(const Group& group, int max_code, size_t without = kNone) {
  double low = 0, high = 0;
  for (size_t i = 0; i < group.values.size(); ++i) {
    if (!group.counts[i] || i == without) continue;
    low = std::min(low, group.values[i]);
    high = std::max(high, group.values[i]);
  }
  if (low == high) return {};
  const double scale = (high - low) / max_code;
  return {scale, -low / scale};
}

double sensitivity(const Group& group, size_t i, const RealGrid& grid, int max_code) {
  double rounded = 0;
  if (grid.scale > 0) {
    const double code = std::clamp(chain::round_even(group.values[i] / grid.scale + grid.zero), 0.0, static_cast<double>(max_code));
    rounded = (code - grid.zero) * grid.scale;
  }
  const double cost = (group.values[i] - rounded) * group.pivots[i];
  return cost * cost;
}

// How much less the rest of the group costs than all of it when the grid is fitted without a weight. [values]
std::vector<double> leave_one_out_gains(const Group& group, int max_code) {
  const RealGrid all = fit(group, max_code);
  const size_t count = group.values.size();
  std::vector<double> gains(count);
  double total = 0;
  for (size_t i = 0; i < count; ++i) {
    if (group.counts[i]) gains[i] = sensitivity(group, i, all, max_code);
    total += gains[i];
  }
  for (size_t i = 0; i < count; ++i) {
    const RealGrid rest = group.counts[i] ? fit(group, max_code, i) : all;
    if (rest.scale == all.scale && rest.zero == all.zero) continue;  // no extreme: all that it saves is its own error
    gains[i] = total;
    for (size_t j = 0; j < count; ++j) {
      if (group.counts[j] && j != i) gains[i] -= sensitivity(group, j, rest, max_code);
    }
  }
  return gains;
}

// Each entry of `statistic` goes to the nearest of 2^bits levels from the least to the largest.
void round_statistic(std::vector<RealGrid*>& grids, double RealGrid::*statistic, int bits) {
  if (grids.empty()) return;
  const auto less = [statistic](const RealGrid* a, const RealGrid* b) { return a->*statistic < b->*statistic; };
  const auto [least, largest] = std::minmax_element(grids.begin(), grids.end(), less);
  const double low = (*least)->*statistic, step = ((*largest)->*statistic - low) / ((1 << bits) - 1);
  if (!(step > 0)) return;
  for (RealGrid* grid : grids) grid->*statistic = low + chain::round_even((grid->*statistic - low) / step) * step;
}

// State of one sweep, a group of columns to a block: fit_block and settle_row are its steps.
template <typename T>
class Sweep {
 public:
  Sweep(const Tensor& weight, const Tensor& kept, const chain::ErrorFeedback& feedback, const SpqrOptions& options)
      : options_(options),
        rows_(weight.size(0)),
        columns_(weight.size(1)),
        max_code_((1 << options.bits) - 1),
        mask_(kept.defined() ? kept.contiguous() : Tensor()),
        pivots_(feedback.pivot.to(at::kDouble).contiguous()),
        result_{chain::GridCodes({.bits = options.bits, .group = options.group}, rows_, columns_), at::zeros({rows_, columns_}, at::kFloat),
                at::zeros({rows_, columns_}, at::kBool)} {
    result_.codes.float_zeros = !options.integer_zeros;
    const double cost = (weight.to(at::kDouble) * pivots_).square().sum().template item<double>();
    const int64_t count = kept.defined() ? kept.sum().template item<int64_t>() : weight.numel();
    if (std::isfinite(options.threshold)) tau_ = options.threshold * cost / static_cast<double>(std::max<int64_t>(count, 1));
  }

  SpqrResult run(const Tensor& weight, const chain::ErrorFeedback& feedback) {
    chain::SweepSteps<T> steps;
    steps.start_block = [this](int64_t begin, int64_t end, const T* targets) { fit_block(begin, end, targets); };
    steps.row = [this](chain::RowSweep<T>& sweep) { settle_row(sweep); };
    chain::sweep_columns<T>(weight, feedback, result_.codes.spec.width(columns_), steps);
    return std::move(result_);
  }

 private:
  const bool* mask_row(int64_t row) const { return mask_.defined() ? mask_.const_data_ptr<bool>() + row * columns_ : nullptr; }

  // Without the likely outliers, unless that leaves nothing. Gives the grid of integer zeros as well, which is GPTQ's.
  RealGrid fit_row(int64_t row, int64_t begin, int64_t end, const T* targets) {
    Group group{{targets, targets + (end - begin)}, pivots_.const_data_ptr<double>() + begin, std::vector<char>(static_cast<size_t>(end - begin), 1)};
    if (const bool* keep = mask_row(row)) std::copy(keep + begin, keep + end, group.counts.begin());
    if (std::isfinite(tau_)) {
      const std::vector<double> gains = leave_one_out_gains(group, max_code_);
      std::vector<char> rest = group.counts;
      for (size_t i = 0; i < rest.size(); ++i) rest[i] = rest[i] && gains[i] <= tau_;
      if (std::find(rest.begin(), rest.end(), 1) != rest.end()) group.counts = rest;
    }
    if (!options_.integer_zeros) return fit(group, max_code_);
    const std::vector<float> values(group.values.begin(), group.values.end());
    const std::unique_ptr<bool[]> counts(new bool[values.size()]);
    std::copy(group.counts.begin(), group.counts.end(), counts.get());
    const chain::GroupGrid grid = chain::fit_group(values.data(), counts.get(), end - begin, result_.codes.spec);
    const bool nothing = fit(group, max_code_).scale == 0;
    return {nothing ? 0 : grid.scale, grid.zero};
  }

  void fit_block(int64_t begin, int64_t end, const T* targets) {
    const int64_t share = options_.statistics_group, index = begin / result_.codes.spec.width(columns_);
    parallel_for((rows_ + share - 1) / share, 1, [&](int64_t first, int64_t last) {
      for (int64_t part = first; part < last; ++part) {
        const int64_t top = part * share, bottom = std::min(top + share, rows_);
        std::vector<RealGrid> grids;
        for (int64_t row = top; row < bottom; ++row) grids.push_back(fit_row(row, begin, end, targets + row * (end - begin)));
        if (options_.statistics_bits > 0) {
          std::vector<RealGrid*> used;
          for (RealGrid& grid : grids) {
            if (grid.scale > 0) used.push_back(&grid);
          }
          round_statistic(used, &RealGrid::scale, options_.statistics_bits);
          if (!options_.integer_zeros) round_statistic(used, &RealGrid::zero, options_.statistics_bits);
        }
        for (int64_t row = top; row < bottom; ++row) {
          const RealGrid& grid = grids[static_cast<size_t>(row - top)];
          if (grid.scale > 0)
            result_.codes.grid(row, index) = {chain::storable_scale(static_cast<float>(grid.scale)), formats::round_to_f16(static_cast<float>(grid.zero))};
        }
      }
    });
  }

  void settle_row(chain::RowSweep<T>& sweep) {
    const bool* keep = mask_row(sweep.row);
    const int64_t at = sweep.row * columns_;
    const chain::GroupGrid grid = result_.codes.grid(sweep.row, sweep.begin / result_.codes.spec.width(columns_));
    for (int64_t c = sweep.begin; c < sweep.end; ++c) {
      const T target = sweep.target(c);
      const bool dropped = keep && !keep[c];
      T code = chain::encode(target, grid, max_code_), value = chain::decode(code, grid);
      const double cost = static_cast<double>(target - value) * pivots_.const_data_ptr<double>()[c];
      if (!dropped && cost * cost > tau_) {
        code = chain::encode(T(0), grid, max_code_);
        value = chain::decode(code, grid);
        const float rest = formats::round_to_f16(static_cast<float>(target - value));
        value += rest;
        result_.outliers.mutable_data_ptr<float>()[at + c] = rest;
        result_.chosen.mutable_data_ptr<bool>()[at + c] = true;
      }
      result_.codes.codes[static_cast<size_t>(at + c)] = static_cast<uint8_t>(code);
      sweep.settle(c, dropped ? T(0) : value);
    }
  }

  const SpqrOptions& options_;
  int64_t rows_, columns_;
  int max_code_;
  Tensor mask_;    // bool [out, in], or undefined
  Tensor pivots_;  // float64 [in]
  double tau_ = std::numeric_limits<double>::infinity();
  SpqrResult result_;
};

void run(chain::BlockContext& context, const Options& options) {
  SpqrOptions settings;
  settings.bits = static_cast<int>(options.integer("bits"));
  settings.group = options.integer("group");
  settings.statistics_bits = static_cast<int>(options.integer("statistics_bits"));
  settings.statistics_group = options.integer("statistics_group");
  settings.integer_zeros = options.text("zeros") == "integer";
  SpqrOptions without_outliers = settings;
  if (options.number("threshold") > 0) settings.threshold = options.number("threshold");
  Tensor hessian;
  chain::ErrorFeedback feedback;
  for (chain::Matrix& matrix : context.matrices()) {
    const Tensor& current = matrix.statistics().hessian;
    if (!hessian.is_same(current)) {
      hessian = current;
      feedback = chain::error_feedback(hessian, options.number("damping"), at::kFloat);
    }
    const SpqrResult result = spqr(matrix.weight, matrix.mask, feedback, matrix.holds_sum() ? settings : without_outliers);
    if (result.chosen.any().item<bool>()) {
      matrix.store_grouped_and_sparse(result.codes.pack(), result.outliers, result.chosen);
    } else {
      matrix.store_grouped(result.codes.pack());
    }
  }
}

}  // namespace

SpqrResult spqr(const Tensor& weight, const Tensor& kept, const chain::ErrorFeedback& feedback, const SpqrOptions& options) {
  chain::require_finite(weight, "weight");
  return weight.scalar_type() == at::kDouble ? Sweep<double>(weight, kept, feedback, options).run(weight, feedback)
                                             : Sweep<float>(weight, kept, feedback, options).run(weight, feedback);
}

chain::StepRow spqr_row() {
  chain::StepRow row;
  row.id = "spqr";
  row.title = "SpQR";
  row.leaf = "quantize";
  row.arxiv = "2306.03078";
  row.summary = "GPTQ in very small groups with quantized scales; the weights that rounding hurts most stay in 16 bits, as a sparse term";
  row.options = {
      integer_option("bits", 3, 2, 8, "bits of a code"),
      integer_option("group", 16, 1, 1 << 20, "input columns that share a scale"),
      number_option("threshold", 0.2, 0, 1e6, "an outlier's error costs more than this, relative to the mean cost of zeroing a weight; 0: no outliers"),
      integer_option("statistics_bits", 3, 0, 8, "bits of the grid on which scales and zero points lie; 0: no such grid"),
      integer_option("statistics_group", 16, 1, 1 << 20, "rows that share that grid"),
      choice_option("zeros", "real", {"real", "integer"}, "zero points on that grid, or integers (a smaller file)"),
      number_option("damping", 0.01, 0, 10, "share of the Hessian's mean diagonal that is added to it")};
  row.function = {
      .effect = chain::StepEffect::quantize, .needs = [](const Options&) -> unsigned { return chain::kNeedsHessian; }, .run_block = run, .sequential = true};
  row.claims = {{.statement = "3 bits in groups of 16: perplexity under GPTQ's with as many bits in groups as small",
                 .model = "S",
                 .baseline = {"gptq:bits=3,group=16"},
                 .method = {"spqr:bits=3,group=16"}}};
  return row;
}

}  // namespace frugal::quantize
