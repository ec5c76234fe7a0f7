// HQQ, half-quadratic quantization (Badri and Shaji, Mobius Labs blog, November 2023). Without calibration, a group's float
// zero point z is chosen to minimise the l_p norm (p < 1: heavy tails count less) of W - (code - z) s, the scale s staying
// (max - min) / (2^bits - 1). Half-quadratic splitting alternates two closed forms:
//   E = shrink_p(W - W_r, beta) = sign(x) max(|x| - |x|^(p-1) / beta, 0)      z = mean(code - (W - E) / s)
//
// As the authors' code: p 0.7, beta 10, kappa 1.01, 20 iterations, early stop on the mean absolute error, groups along the
// input. Different:
//  - Each group stops for itself and keeps its best z (their code stops all at once and keeps the last).
//  - Scale and z are rounded to float16 before the final codes are computed.
//  - A group whose values all lie far from zero (more than the width of its range) has its range widened to zero: z in
//    float16 would not resolve a code.
// Cost: at most `iterations` passes over the weights. The power is taken only above the threshold beta^(-1/(2-p)), below which
// the shrinkage is zero: nearly always, so that a pass costs little more than rounding.
#include "quantize/hqq.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "base/team.h"
#include "formats/half.h"

namespace frugal::quantize {
namespace {

// First grid of a group: its range, with a float zero.
chain::GroupGrid range_grid(const std::vector<float>& values, int max_code) {
  float low = std::numeric_limits<float>::infinity(), high = -low;
  for (const float value : values) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  if (low - (high - low) > 0 || high + (high - low) < 0 || low == high) {
    low = std::min(low, 0.0f);
    high = std::max(high, 0.0f);
  }
  chain::GroupGrid grid;
  if (high > low) grid.scale = chain::storable_scale((high - low) / static_cast<float>(max_code));
  grid.zero = -low / grid.scale;
  return grid;
}

chain::GroupGrid solve_group(const std::vector<float>& values, const HqqOptions& options, int max_code) {
  if (values.empty()) return {};
  chain::GroupGrid grid = range_grid(values, max_code);
  float best_zero = grid.zero;
  double least = std::numeric_limits<double>::infinity(), beta = options.beta;
  for (int iteration = 0; iteration <= options.iterations; ++iteration, beta *= options.kappa) {
    const auto threshold = static_cast<float>(std::pow(beta, -1 / (2 - options.norm)));
    double error = 0, zero = 0;
    for (const float value : values) {
      const float code = chain::encode(value, grid, max_code);
      const float difference = value - chain::decode(code, grid);
      const float size = std::abs(difference);
      float explained = value;  // W - E
      if (size > threshold) {
        const double shrunk = size - std::pow(static_cast<double>(size), options.norm - 1) / beta;
        explained -= std::copysign(static_cast<float>(std::max(shrunk, 0.0)), difference);
      }
      error += size;
      zero += code - explained / grid.scale;
    }
    if (error >= least) break;
    least = error;
    best_zero = grid.zero;
    grid.zero = static_cast<float>(zero / static_cast<double>(values.size()));
  }
  grid.zero = formats::round_to_f16(best_zero);
  return grid;
}

void run(chain::BlockContext& context, const Options& options) {
  HqqOptions settings;
  settings.bits = static_cast<int>(options.integer("bits"));
  settings.group = options.integer("group");
  settings.norm = options.number("norm");
  settings.beta = options.number("beta");
  settings.kappa = options.number("kappa");
  settings.iterations = static_cast<int>(options.integer("iterations"));
  for (chain::Matrix& matrix : context.matrices()) matrix.store_grouped(hqq(matrix.weight, matrix.mask, settings).pack());
}

}  // namespace

chain::GridCodes hqq(const Tensor& weight, const Tensor& kept, const HqqOptions& options) {
  chain::require_finite(weight, "weight");
  const Tensor contiguous = weight.contiguous();
  const Tensor mask = kept.defined() ? kept.contiguous() : Tensor();
  const float* data = contiguous.const_data_ptr<float>();
  const bool* keep = mask.defined() ? mask.const_data_ptr<bool>() : nullptr;
  chain::GridCodes codes({.bits = options.bits, .group = options.group}, weight.size(0), weight.size(1));
  codes.float_zeros = true;
  const int64_t columns = codes.columns, width = codes.spec.width(columns);
  parallel_for(codes.rows, 4, [&](int64_t first, int64_t last) {
    std::vector<float> values;
    for (int64_t row = first; row < last; ++row) {
      for (int64_t begin = 0, group = 0; begin < columns; begin += width, ++group) {
        values.clear();
        for (int64_t i = row * columns + begin; i < row * columns + std::min(begin + width, columns); ++i) {
          if (!keep || keep[i]) values.push_back(data[i]);
        }
        codes.grid(row, group) = solve_group(values, options, codes.spec.max_code());
      }
      codes.encode_row(row, data + row * columns);
    }
  });
  return codes;
}

chain::StepRow hqq_row() {
  chain::StepRow row;
  row.id = "hqq";
  row.title = "HQQ";
  row.leaf = "quantize";
  row.arxiv = "Mobius Labs blog, 2023";
  row.summary = "float zero points by half-quadratic splitting; no calibration, seconds";
  row.options = {integer_option("bits", 4, 2, 8, "bits of a code"),
                 integer_option("group", 64, 0, 1 << 20, "input columns that share a scale; 0: the whole row"),
                 number_option("norm", 0.7, 0.01, 1, "p of the l_p norm of the error"),
                 number_option("beta", 10, 1e-3, 1e6, "weight of the half-quadratic penalty"),
                 number_option("kappa", 1.01, 1, 2, "growth of beta per iteration"),
                 integer_option("iterations", 20, 0, 1000, "at most this many per group")};
  row.function = {.effect = chain::StepEffect::quantize, .run_block = run};
  row.claims = {{.statement = "3 bits in groups of 64: perplexity under round to nearest, in seconds",
                 .model = "S",
                 .baseline = {"rtn:bits=3,group=64"},
                 .method = {"hqq:bits=3,group=64"}}};
  return row;
}

}  // namespace frugal::quantize
