// How a new model begins: where its norms are, how its weights are drawn, and at which parts of the rate its tensors learn, one row of the table per method
// (methods.md, section 2.3).
#pragma once

#include "base/method_choice.h"
#include "nn/spec.h"
#include "train/parameter.h"

namespace frugal::train {

// What begin() says of one tensor: a matrix is normal with this deviation, a vector holds this number.
struct Begin {
  double value = 0;
  double learning_rate_scale = 1;  // times the schedule's rate
};

struct Initialization {
  // What is other than in a Llama of this shape; null: nothing, and transformers and llama.cpp read the model.
  void (*change)(nn::ModelSpec& spec, double initializer_range, const Options& options) = nullptr;
  // `usual`: what the tensor would have without a method. Functions of names and shapes alone.
  Begin (*begin)(const nn::ModelSpec& spec, const Parameter& tensor, double usual, const Options& options) = nullptr;
  // The rates are for optimizers whose steps do not depend on the gradient's size (Adam's kind).
  bool wants_adam = false;
};

using InitializationRow = MethodRow<Initialization>;
using InitializationChoice = MethodChoice<Initialization>;
const MethodTable<Initialization>& initialization_table();

InitializationRow deepnorm_row();
InitializationRow rezero_row();
InitializationRow skipinit_row();
InitializationRow fixup_row();
InitializationRow mup_row();

// What several of them have.

// sqrt(2 / (fan_in + fan_out)), Glorot's: a matrix of the blocks keeps the size of what passes it in both directions.
double xavier_deviation(const Parameter& matrix);
// For a residual stream that no norm reads: embeddings begin with the usual deviation, which makes small logits where they are the head too, and are
// divided by it as they are looked up, so that the stream begins with numbers around `size`. (Vaswani et al., 2017, section 3.4, has sqrt(hidden) for
// rows of length 1, with which a tied model begins by repeating its input.)
void scale_embedding(nn::ModelSpec& spec, double initializer_range, double size = 1);
bool is_embedding_or_head(const Parameter& tensor);
// Values, attention's output, up and down: what a branch adds is linear in each.
bool is_linear_in_branch(const Parameter& tensor);
// A claim of the loss after training a new model, at the best of as many rates for each side.
Claim claim_of_new_model(std::string statement, std::vector<std::string> baseline, std::vector<std::string> method, TrainingBudget budget);

}  // namespace frugal::train
