// The rows of the optimizer table, each in the file of its name.
#pragma once

#include "train/optimizer.h"

namespace frugal::train {

using OptimizerRow = MethodRow<OptimizerFactory>;

// Claims on a new model of two blocks: the held-out loss after the same steps, each side at the best of as many learning rates, and the bytes of the
// state, holding below `factor` times AdamW's.
Claim loss_against_adamw(std::string statement, std::vector<std::string> method, std::vector<double> rates, double factor = 1);
Claim state_against_adamw(std::string statement, std::string method, double factor);

OptimizerRow adamw_row();
OptimizerRow adafactor_row();
OptimizerRow adam8bit_row();
OptimizerRow fp8_lm_row();
OptimizerRow galore_row();
OptimizerRow lion_row();
OptimizerRow lomo_row();
OptimizerRow mezo_row();
OptimizerRow muon_row();
OptimizerRow schedule_free_row();
OptimizerRow sgd_row();
OptimizerRow sophia_row();

template <typename Made>
std::unique_ptr<Optimizer> make_optimizer(std::vector<Parameter> parameters, const Options& options) {
  return std::make_unique<Made>(std::move(parameters), options);
}

// Options that several of them have, in the words and ranges of torch.optim.
OptionSpec beta_option(std::string name, double fallback, std::string help);
OptionSpec eps_option(double fallback);
OptionSpec weight_decay_option(double fallback);

}  // namespace frugal::train
