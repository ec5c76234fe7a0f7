// AWQ, arXiv 2306.00978 (Lin et al., 2023): a few input channels matter most, those whose activations are large. Their columns
// are scaled up by s before rounding (and the activation down, folded into the operation before), which shrinks their
// relative error. s = s_X^alpha (equation 5), s_X the mean magnitude of the channel, alpha by a grid of 20 on the output of
// the module that reads the input: attention for q, k, v, the MLP for gate and up, the Linear itself for o and down. Then
// each group's range is clipped by a second search (not for q and k, whose errors multiply each other), and rounded.
//
// As the paper and its public code: grid, normalisation of s, losses, clip from 1 to 0.55 of the range in steps of 0.05.
// Different:
//  - Losses are taken on `rows` tokens of the sample (the public code takes all of 128 x 512; for SmolLM2-135M that would be
//    20 x 65,536 tokens through every block). s_X is the mean over all calibration tokens.
//  - With grouped-query attention, the scale of o is shared by the query heads that read one value channel (the mean of their
//    s_X), and so folds into v; the public code skips o there.
//  - Masked weights keep their zeros; of a low-rank product the factor that reads the input is scaled.
// Cost: grid x 2 rows x parameters of the module, for each input; 10 roundings of every weight for the clip search.
#include "quantize/awq.h"

#include <ATen/ATen.h>

#include <limits>
#include <tuple>

#include "base/error.h"

namespace frugal::quantize {
namespace {

using nn::InputPoint;

constexpr int64_t kClipRows = 512;  // as the public code
constexpr int kClipSteps = 10;

// The tokens on which a module is run. Attention needs a sequence: the first one's beginning. Elsewhere tokens are independent
// and are spread over the sample, from within its sequences: the first token of each has outliers that no other has.
Tensor judged_rows(const Tensor& sample, InputPoint point, int64_t sequence_length, int64_t rows) {
  if (rows >= sample.size(0)) return sample;
  if (point == InputPoint::attention_input) return sample.slice(0, 0, std::min(rows, sequence_length));
  const int64_t stride = sample.size(0) / rows;
  return sample.slice(0, stride / 2, stride / 2 + stride * rows, stride).contiguous();
}

// Factors other than the one that reads the input see its output only.
bool reads_input(const chain::Matrix& matrix) { return !matrix.name.ends_with(".second"); }

void scale_point(chain::BlockContext& context, InputPoint point, const chain::GridSpec& spec, int grid, int64_t rows) {
  std::vector<chain::Matrix> matrices = context.matrices_at(point);
  std::erase_if(matrices, [](const chain::Matrix& matrix) { return !reads_input(matrix); });
  if (matrices.empty()) return;  // this half was pruned away
  const chain::InputStatistics& statistics = context.statistics(point);
  const Tensor abs_mean = point == InputPoint::attention_output ? context.shared_over_heads(statistics.abs_mean) : statistics.abs_mean;
  const Tensor input = judged_rows(statistics.sample, point, context.sequence_length, rows);
  std::vector<WeightPart> parts;
  for (const chain::Matrix& matrix : matrices) parts.push_back({matrix.weight, matrix.mask});
  const AwqScale found = search_scale(parts, abs_mean, spec, grid, [&](const std::vector<Tensor>& weights) {
    for (size_t i = 0; i < matrices.size(); ++i) matrices[i].replace(std::make_shared<nn::DenseKind>(weights[i]));
    return context.run_from(point, input);
  });
  for (chain::Matrix& matrix : matrices) matrix.store_dense(matrix.weight);  // keeps its mask
  if (found.alpha > 0) context.scale_input(point, found.scale);
}

bool is_query_or_key(const nn::Block& block, const std::string& name) {
  const auto of = [&](const nn::Linear& linear) { return linear && name.starts_with(linear.name()); };
  return of(block.query) || of(block.key);
}

void run(chain::BlockContext& context, const Options& options) {
  const chain::GridSpec spec = chain::grid_spec(options);
  for (const InputPoint point : nn::kInputPoints) {
    scale_point(context, point, spec, static_cast<int>(options.integer("grid")), options.integer("rows"));
  }
  for (chain::Matrix& matrix : context.matrices()) {
    Tensor weight = matrix.weight;
    if (options.boolean("clip") && !is_query_or_key(context.block, matrix.name)) {
      weight = clip_ranges(weight, matrix.mask, matrix.statistics().sample, spec);
    }
    matrix.store_grouped(chain::round_to_grid(weight, matrix.mask, spec).pack());
  }
}

// Square roots of a sample's Gram matrices, one per group: R [groups, f, width] with R^T R = X_g^T X_g, f = min(rows, width).
// sample [rows, groups * width].
Tensor gram_roots(const Tensor& sample, int64_t width) {
  const Tensor parts = sample.reshape({sample.size(0), -1, width}).permute({1, 0, 2});
  return std::get<1>(at::linalg_qr(parts, "r"));
}

// Error of each (group, row) of the outputs. difference [rows, groups * width] -> [groups, rows].
Tensor output_error(const Tensor& difference, const Tensor& roots) {
  const int64_t width = roots.size(2);
  const Tensor parts = difference.reshape({difference.size(0), -1, width}).permute({1, 0, 2});
  return at::bmm(parts, roots.transpose(1, 2)).square().sum(2);
}

// Clips `weight` [rows, groups * width]: all its groups have the same width.
Tensor clip_even(const Tensor& weight, const Tensor& kept, const Tensor& sample, const chain::GridSpec& spec, int64_t width) {
  const int64_t rows = weight.size(0), groups = weight.size(1) / width;
  const Tensor roots = gram_roots(sample, width);
  const Tensor grouped = weight.reshape({rows, groups, width});
  const Tensor largest = grouped.abs().amax(2, /*keepdim=*/true);  // [rows, groups, 1]
  const auto clipped_to = [&](const Tensor& bound) { return grouped.clamp(-bound, bound).reshape({rows, groups * width}); };
  Tensor best_bound = largest.clone(), least;
  for (int step = 0; step < kClipSteps; ++step) {
    const Tensor bound = largest * (1 - step / 20.0);
    Tensor difference = chain::rounded_to_grid(clipped_to(bound), kept, spec) - weight;
    if (kept.defined()) difference.mul_(kept);
    const Tensor error = output_error(difference, roots).t().unsqueeze(2);
    if (!least.defined()) {
      least = error;
      continue;
    }
    const Tensor better = error < least;
    least = at::where(better, error, least);
    best_bound = at::where(better, bound, best_bound);
  }
  return clipped_to(best_bound);
}

}  // namespace

AwqScale search_scale(const std::vector<WeightPart>& parts, const Tensor& abs_mean, const chain::GridSpec& spec, int grid, const ModuleOutput& output) {
  std::vector<Tensor> weights;
  for (const WeightPart& part : parts) weights.push_back(part.weight);
  const Tensor reference = output(weights);
  AwqScale best;
  double least = std::numeric_limits<double>::infinity();
  for (int step = 0; step < grid; ++step) {
    const double alpha = static_cast<double>(step) / grid;
    Tensor scale = abs_mean.pow(alpha).clamp_min(1e-4);
    scale = scale / (scale.max() * scale.min()).sqrt();
    for (size_t i = 0; i < parts.size(); ++i) {
      weights[i] = chain::rounded_to_grid(parts[i].weight * scale, parts[i].kept, spec).div_(scale);
      if (parts[i].kept.defined()) weights[i].mul_(parts[i].kept);
    }
    const double loss = (output(weights) - reference).square().mean().item<double>();
    best.losses.push_back(loss);
    if (loss < least) {
      least = loss;
      best.alpha = alpha;
      best.scale = scale;
    }
  }
  if (!best.scale.defined()) fail(ErrorKind::invalid_input, "awq: the module's output is not finite");
  return best;
}

Tensor clip_ranges(const Tensor& weight, const Tensor& kept, const Tensor& sample, const chain::GridSpec& spec) {
  const int64_t columns = weight.size(1), width = spec.width(columns), even = columns / width * width;
  const Tensor rows = sample.slice(0, 0, std::min(sample.size(0), kClipRows));
  std::vector<Tensor> parts;
  for (const auto& [begin, end, group] : {std::tuple{int64_t{0}, even, width}, std::tuple{even, columns, columns - even}}) {
    if (begin == end) continue;
    const Tensor mask = kept.defined() ? kept.slice(1, begin, end) : Tensor();
    chain::GridSpec part = spec;
    part.group = group;
    parts.push_back(clip_even(weight.slice(1, begin, end), mask, rows.slice(1, begin, end), part, group));
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts, 1);
}

chain::StepRow awq_row() {
  chain::StepRow row;
  row.id = "awq";
  row.title = "AWQ";
  row.leaf = "quantize";
  row.arxiv = "2306.00978";
  row.summary = "scales up the columns of large activations before rounding, searched per module; clips ranges";
  row.options = chain::grid_options(4);
  row.options.push_back(integer_option("grid", 20, 1, 1000, "values of alpha that are tried"));
  row.options.push_back(integer_option("rows", 128, 1, 1 << 20, "calibration tokens on which alpha is judged"));
  row.options.push_back(boolean_option("clip", true, "search a smaller range for each group"));
  row.function = {.effect = chain::StepEffect::quantize,
                  .needs = [](const Options&) -> unsigned { return chain::kNeedsMagnitude | chain::kNeedsSample; },
                  .run_block = run};
  row.claims = {{.statement = "3 bits in groups of 64: perplexity under round to nearest",
                 .model = "S",
                 .baseline = {"rtn:bits=3,group=64"},
                 .method = {"awq:bits=3,group=64"}}};
  return row;
}

}  // namespace frugal::quantize
