// LISA: Layerwise Importance Sampling for Memory-Efficient Large Language Model Fine-Tuning (Pan et al., 2024, arXiv 2403.17919), algorithm 1: every K steps
// gamma of the N blocks are drawn, uniformly, and train with the embedding, the head and the last norm; all other blocks are frozen for that time:
//   p = (1, gamma / N, ..., gamma / N, 1)
//
// As in the authors' program (LMFlow's LISATrainer), AdamW's state of the blocks begins anew with each draw, and that of the rest goes on. Memory: float32
// weights, and gradients and state of gamma blocks, embedding and head. A tied embedding counts once. Cost: less than full tuning, no gradients of frozen weights.
#include "tune/lisa.h"

namespace frugal::tune {
namespace {

train::LayerSampling run(const Options& options, uint64_t seed) {
  return {.layers = options.integer("activated_layers"), .interval = options.integer("interval_steps"), .seed = seed};
}

}  // namespace

LayerSamplingRow lisa_row() {
  LayerSamplingRow row;
  row.id = "lisa";
  row.title = "LISA";
  row.leaf = "tune";
  row.arxiv = "2403.17919";
  row.summary = "the whole model, a few randomly drawn blocks at a time: state and gradients of these only";
  row.options = {integer_option("activated_layers", 2, 1, 100'000, "blocks that train at once, beside embedding and head"),
                 integer_option("interval_steps", 20, 1, 1'000'000, "steps from one draw to the next")};
  row.function = run;
  row.claims = {{.statement = "loss under LoRA's",
                 .model = "T",
                 .baseline = {"lora"},
                 .method = {"lisa:activated_layers=1,interval_steps=10"},
                 .metric = "loss",
                 .training = {.steps = 60, .batch_size = 4, .text = "faq", .baseline_rates = {1e-3, 3e-3, 1e-2}, .method_rates = {3e-4, 1e-3, 3e-3}}},
                {.statement = "a third of full tuning's optimizer state, with two of thirty blocks",
                 .model = "S",
                 .baseline = {"full"},
                 .method = {"lisa"},
                 .metric = "state_bytes",
                 .factor = 1.0 / 3},
                {.statement = "and of its gradients",
                 .model = "S",
                 .baseline = {"full"},
                 .method = {"lisa"},
                 .metric = "gradient_bytes",
                 .factor = 1.0 / 3,
                 .training = {.batch_size = 1, .sequence_len = 128}}};
  return row;
}

const MethodTable<LayerSamplingFunction>& layer_sampling_table() {
  static const MethodTable<LayerSamplingFunction> table({lisa_row()});
  return table;
}

}  // namespace frugal::tune
