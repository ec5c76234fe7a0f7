// Training as a step of a chain: what such steps share. The text is the chain's calibration text, in its sequences, or what the model writes
// itself; nothing is written on the way, so a chain that is stopped begins again.
#pragma once

#include <functional>
#include <vector>

#include "chain/chain.h"
#include "train/parameter.h"
#include "train/trained_kind.h"

namespace frugal::train {

// max_steps, num_epochs, learning_rate, micro_batch_size, gradient_accumulation_steps, gradient_checkpointing, data, distillation.
std::vector<OptionSpec> chain_training_options(double learning_rate, double distillation);

unsigned chain_training_needs(const Options& options);    // Step::needs
bool chain_training_has_teacher(const Options& options);  // which writes the text, too, where it is generated

// The matrices of all blocks, each in training in the form that `form` gives it, and the norms, which take gradients from now on.
struct TrainedBlocks {
  std::vector<chain::Matrix> matrices;  // store_... ends the training of each
  std::vector<Parameter> norms;
};
using FormOf = std::function<TrainedKind::Form(nn::Block& block, const chain::Matrix& matrix)>;
TrainedBlocks train_blocks(nn::Model& model, const FormOf& form);

// Trains the parameters; `teacher` is null unless chain_training_has_teacher. AdamW without weight decay, a cosine
// after 3 % of warm-up. token_temperature: see LogitDistillation. Throws Interrupted. Memory: 16 bytes a trained number and the activations of a micro-batch.
void train_in_chain(chain::Workbench& bench, const Options& options, const std::vector<Parameter>& parameters, nn::Model* teacher,
                    double token_temperature = 0);

// Norms are plain tensors again.
void end_training(nn::Model& model);

}  // namespace frugal::train
