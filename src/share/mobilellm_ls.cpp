// MobileLLM-LS (arXiv 2402.14905, section 2.3): each block is computed twice in a row, so that a model is twice as deep as its weights ("immediate
// block-wise sharing"; the paper finds little more in further repeats, and the key of its configuration, layer_sharing, is true or false). Deep and thin
// is the shape that num_hidden_layers and hidden_size give; embedding and head are one matrix unless tie_word_embeddings says otherwise. Files are those
// of the authors' class (github.com/facebookresearch/MobileLLM): model_type mobilellm, layer_sharing, share_embedding, num_hidden_layers blocks.
// Cost: of compute and of keys and values that of twice the blocks, of weights and optimizer state that of the blocks.
#include "share/share_table.h"

namespace frugal::share {

ShareRow mobilellm_ls_row() {
  ShareRow row;
  row.id = "mobilellm-ls";
  row.title = "MobileLLM-LS";
  row.leaf = "share";
  row.arxiv = "2402.14905";
  row.summary = "a new model that computes each block twice in a row: depth at no size";
  row.function = {.sharing = "blocks"};
  const auto against_unshared = [](std::string statement, std::string metric, double bound) -> Claim {
    return {.statement = std::move(statement),
            .model = "T",
            .baseline = {"full"},
            .method = {"mobilellm-ls"},
            .metric = std::move(metric),
            .bound = bound,
            .training = {.steps = 100, .batch_size = 4, .new_blocks = 2, .baseline_rates = {1e-3, 2e-3, 4e-3}, .method_rates = {1e-3, 2e-3, 4e-3}}};
  };
  row.claims = {against_unshared("lower loss than the same blocks computed once, after the same steps", "loss", 0),
                against_unshared("not a parameter more", "trainable_parameters", 1)};
  return row;
}

}  // namespace frugal::share
