// TSLD, arXiv 2308.06744 (Kim et al., 2023): ternary weights trained with the model before as teacher, by its logits, each token weighted by how unsure
// the teacher is of it: the softmax over a sequence's tokens of the teacher's cross-entropy over `temperature` (section 4.2, equation 6). Weights are
// those of ternary weight networks (arXiv 1605.04711): a row, or a group of it, is its sign where it is larger than 0.7 times its mean magnitude, times
// the mean magnitude of those; gradients pass the rounding straight through.
//
// What differs from the paper: a sequence counts as all its tokens, in place of the sum over sequences of weighted means (the authors' program,
// github.com/aiha-lab/TSLD), so that learning rates mean what they do elsewhere; the divergence stands for the cross-entropy of soft labels, which has
// the same gradient. The embedding, the head and biases are neither quantized nor trained; norms are trained.
// Cost: qat-ste's, and a pass over the teacher's logits. Stored are codes of 2 bits with a float32 scale each row or group.
#include "quantize/tsld.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "train/chain_training.h"
#include "train/trained_kind.h"

namespace frugal::quantize {
namespace {

using at::Tensor;

constexpr double kThreshold = 0.7;  // of the mean magnitude
constexpr int kZero = 2;            // the code of 0

// One group of columns of all rows.
Tensor ternary_group(const Tensor& weight) {
  const Tensor magnitude = weight.abs(), kept = magnitude > magnitude.mean(1, true) * kThreshold;
  const Tensor scale = (magnitude * kept).sum(1, true) / kept.sum(1, true).clamp_min(1);
  return weight.sign() * kept * scale;
}

int64_t width_of(const Tensor& weight, int64_t group) { return group == 0 ? weight.size(1) : std::min(group, weight.size(1)); }

Tensor unpruned(const Tensor& weight, const Tensor& mask) { return mask.defined() ? weight * mask : weight; }

void run(chain::Workbench& bench, const Options& options) {
  const int64_t group = options.integer("group");
  const double temperature = options.number("temperature");
  const bool has_teacher = train::chain_training_has_teacher(options);
  if (options.given("temperature") && options.number("distillation") == 0)
    fail(ErrorKind::invalid_input, "tsld: temperature scales the teacher's part of the loss, which distillation 0 leaves out");
  nn::Model teacher;
  if (has_teacher) teacher = bench.model;  // shares the weights
  train::TrainedBlocks trained = train::train_blocks(bench.model, [group](nn::Block&, const chain::Matrix& matrix) {
    train::TrainedKind::Form form;
    form.weight = [weight = matrix.weight, mask = matrix.mask, group] {
      const Tensor kept = unpruned(weight, mask);
      return train::straight_through(twn_weight(kept.detach(), group), kept);
    };
    return form;
  });
  std::vector<train::Parameter> parameters = trained.norms;
  for (const chain::Matrix& matrix : trained.matrices) parameters.push_back({matrix.name + ".weight", matrix.weight.requires_grad_()});
  if (!bench.rehearsal) train::train_in_chain(bench, options, parameters, has_teacher ? &teacher : nullptr, temperature);
  parameters.clear();
  for (chain::Matrix& matrix : trained.matrices) {
    matrix.store_grouped(twn_codes(unpruned(matrix.weight, matrix.mask).detach(), group));
    matrix = {};  // the float weights and their gradients go
  }
  train::end_training(bench.model);
}

Claim against(std::string statement, std::string baseline) {
  return {.statement = std::move(statement), .model = "T", .baseline = {std::move(baseline)}, .method = {"tsld:learning_rate=5e-4,num_epochs=4"}, .chunks = 32};
}

}  // namespace

Tensor twn_weight(const Tensor& weight, int64_t group) {
  const int64_t width = width_of(weight, group), columns = weight.size(1);
  std::vector<Tensor> groups;
  for (int64_t begin = 0; begin < columns; begin += width) groups.push_back(ternary_group(weight.narrow(1, begin, std::min(width, columns - begin))));
  return groups.size() == 1 ? groups.front() : at::cat(groups, 1);
}

formats::GroupedWeight twn_codes(const Tensor& weight, int64_t group) {
  const int64_t width = width_of(weight, group), columns = weight.size(1);
  const Tensor ternary = twn_weight(weight, group);
  formats::GroupedWeight packed = formats::make_grouped({weight.size(0), columns, /*bits=*/2, width, /*symmetric=*/true});
  packed.scale_format = "F32";
  std::vector<Tensor> scales;
  for (int64_t begin = 0; begin < columns; begin += width) scales.push_back(ternary.narrow(1, begin, std::min(width, columns - begin)).abs().amax(1));
  const Tensor all = at::stack(scales, 1).clamp_min(1e-30).contiguous();  // [rows, groups]; a scale of zeros is never used
  packed.scales.assign(all.const_data_ptr<float>(), all.const_data_ptr<float>() + all.numel());
  const Tensor codes = (ternary.sign() + kZero).to(at::kByte).contiguous();
  for (int64_t row = 0; row < packed.rows; ++row) formats::pack_row(packed, row, codes.const_data_ptr<uint8_t>() + row * columns);
  return packed;
}

chain::StepRow tsld_row() {
  chain::StepRow row;
  row.id = "tsld";
  row.title = "TSLD";
  row.leaf = "quantize";
  row.arxiv = "2308.06744";
  row.summary = "trains on with ternary weights, taught by the logits of the model before, most where it is unsure";
  row.options = {integer_option("group", 0, 0, 1 << 20, "input columns that share a scale; 0: the whole row"),
                 number_option("temperature", 10, 0, 1e6, "of the weights of a sequence's tokens; 0: all count alike")};
  for (OptionSpec& option : train::chain_training_options(/*learning_rate=*/1e-4, /*distillation=*/1)) row.options.push_back(std::move(option));
  row.function = {.scope = chain::StepScope::model, .effect = chain::StepEffect::quantize, .needs = train::chain_training_needs, .run_model = run};
  row.claims = {against("ternary weights: perplexity under training by the labels", "tsld:distillation=0,learning_rate=5e-4,num_epochs=4"),
                against("ternary weights: perplexity under distillation of all tokens alike", "tsld:temperature=0,learning_rate=5e-4,num_epochs=4")};
  return row;
}

}  // namespace frugal::quantize
