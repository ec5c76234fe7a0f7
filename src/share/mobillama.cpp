// MobiLlama (arXiv 2402.16840, section 3.3): all blocks have one MLP; attention and norms, the one before the MLP too, are each block's own, as in the
// authors' program (github.com/mbzuai-oryx/MobiLlama, model_utils/modeling_mobillama.py). Their files name the class Llama and repeat the matrices in
// each block; here they are stored once, under the first block's names, and the model_type is mobillama, so that nobody reads them as a Llama's.
// Cost: of compute that of a Llama of the shape, of weights and optimizer state one MLP.
#include "share/share_table.h"

namespace frugal::share {

ShareRow mobillama_row() {
  ShareRow row;
  row.id = "mobillama";
  row.title = "MobiLlama";
  row.leaf = "share";
  row.arxiv = "2402.16840";
  row.summary = "a new model whose blocks have one MLP";
  row.function = {.sharing = "mlp"};
  // Model T's MLP has 512 channels: four of 128 are of equal size.
  const auto against_narrow = [](std::string statement, std::string metric, double bound) -> Claim {
    return {.statement = std::move(statement),
            .model = "T",
            .baseline = {"shape:intermediate_size=128"},
            .method = {"mobillama"},
            .metric = std::move(metric),
            .bound = bound,
            .training = {.steps = 100, .batch_size = 4, .new_blocks = 4, .baseline_rates = {1e-3, 2e-3, 4e-3}, .method_rates = {1e-3, 2e-3, 4e-3}}};
  };
  row.claims = {against_narrow("lower loss than a model of equal size with an own, narrow MLP in each block", "loss", 0),
                against_narrow("of which it has not a parameter more", "trainable_parameters", 1)};
  return row;
}

}  // namespace frugal::share
