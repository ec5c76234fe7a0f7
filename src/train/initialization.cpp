#include "train/initialization.h"

#include <cmath>

namespace frugal::train {

const MethodTable<Initialization>& initialization_table() {
  static const MethodTable<Initialization> table({deepnorm_row(), rezero_row(), skipinit_row(), fixup_row(), mup_row()});
  return table;
}

double xavier_deviation(const Parameter& matrix) { return std::sqrt(2.0 / static_cast<double>(matrix.tensor.size(0) + matrix.tensor.size(1))); }

void scale_embedding(nn::ModelSpec& spec, double initializer_range, double size) { spec.embedding_scale = static_cast<float>(size / initializer_range); }

bool is_embedding_or_head(const Parameter& tensor) { return tensor.name == "model.embed_tokens.weight" || tensor.name == "lm_head.weight"; }

bool is_linear_in_branch(const Parameter& tensor) {
  const auto ends = [&](const char* name) { return tensor.name.ends_with(name); };
  return ends("v_proj.weight") || ends("o_proj.weight") || ends("up_proj.weight") || ends("down_proj.weight");
}

Claim claim_of_new_model(std::string statement, std::vector<std::string> baseline, std::vector<std::string> method, TrainingBudget budget) {
  return {.statement = std::move(statement),
          .model = "T",
          .baseline = std::move(baseline),
          .method = std::move(method),
          .metric = "loss",
          .training = std::move(budget)};
}

}  // namespace frugal::train
