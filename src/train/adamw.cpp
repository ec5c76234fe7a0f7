// Decoupled Weight Decay Regularization (Loshchilov and Hutter, 2017), the baseline of the others:
//   m <- beta1 m + (1 - beta1) g,  v <- beta2 v + (1 - beta2) g^2
//   w <- (1 - rate decay) w - rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
//
// It is torch's own fused kernel, that of torch.optim.AdamW(fused=True): one pass that reads 16 and writes 12 bytes a parameter.
// State: 8 bytes a parameter.
#include "train/adamw.h"

#include <ATen/ATen.h>

#include "train/optimizer_rows.h"

namespace frugal::train {
namespace {

class AdamW : public PerParameter<AdamState> {
 public:
  AdamW(std::vector<Parameter> parameters, const Options& options) : PerParameter(std::move(parameters)), settings_(AdamSettings::of(options)) {
    for (const Parameter& parameter : parameters_) states_.emplace_back(parameter.tensor.sizes());
  }

 private:
  void update(const Parameter& parameter, const at::Tensor& gradient, AdamState& state, double learning_rate) override {
    AdamSettings settings = settings_;
    settings.weight_decay = decay_of(parameter, settings.weight_decay);
    adamw_update(parameter.tensor, gradient, state, settings, learning_rate);
  }

  AdamSettings settings_;
};

}  // namespace

AdamSettings AdamSettings::of(const Options& options) {
  return {options.number("beta1"), options.number("beta2"), options.number("eps"), options.number("weight_decay")};
}

void adamw_update(const at::Tensor& weights, const at::Tensor& gradient, AdamState& state, const AdamSettings& settings, double learning_rate) {
  increment(state.step);
  const at::Tensor w = weights.detach();  // the kernel writes in place, which autograd would refuse for a leaf
  at::_fused_adamw_({w}, {gradient}, {state.exp_avg}, {state.exp_avg_sq}, {}, {state.step}, learning_rate, settings.beta1, settings.beta2,
                    settings.weight_decay, settings.eps, /*amsgrad=*/false, /*maximize=*/false);
}

OptimizerRow adamw_row() {
  OptimizerRow row;
  row.id = "adamw";
  row.title = "AdamW";
  row.leaf = "train";
  row.arxiv = "1711.05101";
  row.summary = "running mean of the gradient over the root of that of its square; weight decay apart from the gradient";
  row.options = {beta_option("beta1", 0.9, "decay of the mean of gradients"), beta_option("beta2", 0.999, "decay of the mean of their squares"),
                 eps_option(1e-8), weight_decay_option(0.01)};
  row.function = make_optimizer<AdamW>;
  row.reference = "baseline";
  return row;
}

}  // namespace frugal::train
