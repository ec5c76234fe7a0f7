// The recovery stage of structured pruning (LLM-Pruner, arXiv 2305.11627, section 3.3), after any step that leaves floats: removed blocks, masks,
// factors. Whatever form a matrix has, it keeps: what a mask dropped stays dropped, factors stay factors.
// rank=0 trains all weights of the blocks and their norms; rank above 0 a low-rank change of each matrix (LoRA, arXiv 2106.09685), which is then merged.
// distillation above 0 learns from the logits of the model that the chain began with (as Minitron does, arXiv 2407.14679, section 3).
//
// What differs from LLM-Pruner: the text is the chain's calibration text in place of Alpaca. The embedding, the head and biases are not trained.
// Cost: a forward and a backward pass a micro-batch, with a teacher a forward pass of it. Peak memory: the blocks as floats, 12 more bytes a weight
// (with a rank: 4 for one matrix at a time), and the teacher as floats.
#include "train/recover.h"

#include <ATen/ATen.h>

#include <cmath>

#include "base/error.h"
#include "train/chain_training.h"

namespace frugal::train {
namespace {

using at::Tensor;

// What is added to a matrix: alpha / rank * B A, A drawn as LoRA's reference draws it, B zero.
struct LowRankChange {
  Tensor a, b;
  double scale;
};

LowRankChange draw_change(const chain::Matrix& matrix, int64_t rank, double alpha, Rng& rng) {
  Tensor a = at::empty({rank, matrix.in_features()}, at::kFloat);
  const double bound = 1 / std::sqrt(static_cast<double>(matrix.in_features()));
  float* values = a.mutable_data_ptr<float>();
  for (int64_t i = 0; i < a.numel(); ++i) values[i] = static_cast<float>((2 * rng.uniform() - 1) * bound);
  return {a, at::zeros({matrix.out_features(), rank}, at::kFloat), alpha / static_cast<double>(rank)};
}

// What a matrix was stored as is what it will be stored as; encoded ones become F16, as factors are.
at::ScalarType stored_type(nn::Block& block, const chain::Matrix& matrix) {
  for (const nn::Linear* linear : block.linears()) {
    const auto* dense = linear->kinds().size() == 1 ? dynamic_cast<const nn::DenseKind*>(linear->kinds().front().get()) : nullptr;
    if (dense && linear->name() == matrix.name) return dense->weight().scalar_type();
  }
  return at::kHalf;
}

void run(chain::Workbench& bench, const Options& options) {
  const int64_t rank = options.integer("rank");
  if (rank == 0 && options.given("alpha")) fail(ErrorKind::invalid_input, "recover: alpha is the scale of a low-rank change: give rank as well");
  std::vector<Parameter> parameters;
  std::vector<std::function<Tensor()>> weights;
  std::vector<at::ScalarType> types;
  TrainedBlocks trained = train_blocks(bench.model, [&](nn::Block& block, const chain::Matrix& matrix) {
    TrainedKind::Form form;
    std::function<Tensor()> change;
    if (rank > 0) {
      const LowRankChange lora = draw_change(matrix, rank, options.number("alpha"), bench.rng);
      parameters.push_back({matrix.name + ".lora_A.weight", lora.a.requires_grad_()});
      parameters.push_back({matrix.name + ".lora_B.weight", lora.b.requires_grad_()});
      change = [lora] { return at::matmul(lora.b, lora.a).mul_(lora.scale); };
    } else {
      parameters.push_back({matrix.name + ".weight", matrix.weight.requires_grad_()});
    }
    form.weight = [weight = matrix.weight, mask = matrix.mask, change] {
      const Tensor changed = change ? weight + change() : weight;
      return mask.defined() ? changed * mask : changed;
    };
    weights.push_back(form.weight);
    types.push_back(stored_type(block, matrix));
    return form;
  });
  if (rank == 0) parameters.insert(parameters.end(), trained.norms.begin(), trained.norms.end());
  if (!bench.rehearsal) train_in_chain(bench, options, parameters, chain_training_has_teacher(options) ? bench.original.get() : nullptr);
  parameters.clear();
  for (size_t i = 0; i < weights.size(); ++i) {
    chain::Matrix& matrix = trained.matrices[i];
    const Tensor weight = weights[i]().detach();
    if (matrix.mask.defined())
      matrix.store_dense(weight);
    else
      matrix.replace(std::make_shared<nn::DenseKind>(weight.to(types[i]).contiguous()));
    matrix = {};
    weights[i] = {};  // the float weights and their gradients go
  }
  end_training(bench.model);
}

}  // namespace

chain::StepRow recover_row() {
  chain::StepRow row;
  row.id = "recover";
  row.title = "Recovery by training";
  row.leaf = "train";
  row.arxiv = "2305.11627";
  row.summary = "trains what pruning or factors left, and keeps their form";
  row.options = {integer_option("rank", 0, 0, 1 << 16, "of a change of each matrix that is trained and merged (LoRA); 0: all weights are trained"),
                 number_option("alpha", 16, 0, 1e6, "over rank: the scale of the change")};
  for (OptionSpec& option : chain_training_options(/*learning_rate=*/1e-4, /*distillation=*/0)) row.options.push_back(std::move(option));
  row.function = {.scope = chain::StepScope::model,
                  .effect = chain::StepEffect::transform,
                  .needs = chain_training_needs,
                  .run_model = run,
                  .reads_original = chain_training_has_teacher};
  row.claims = {{.statement = "a fifth of the blocks removed: perplexity under that without recovery",
                 .model = "S",
                 .baseline = {"shortgpt:blocks=6"},
                 .method = {"shortgpt:blocks=6", "recover"}},
                {.statement = "half of the weights dropped: perplexity under that without recovery, at the same sparsity",
                 .model = "S",
                 .baseline = {"magnitude:sparsity=0.5"},
                 .method = {"magnitude:sparsity=0.5", "recover"}}};
  return row;
}

}  // namespace frugal::train
