// Symbolic Discovery of Optimization Algorithms (Chen et al., 2023), Lion:
//   w <- (1 - rate decay) w - rate sign(beta1 m + (1 - beta1) g),  then  m <- beta2 m + (1 - beta2) g
//
// Every number moves by the rate, so the paper's rates are 3 to 10 times smaller than AdamW's, and the decay larger by as much.
// State: 4 bytes a parameter, half of AdamW's. One pass over memory.
#include "train/optimizer_rows.h"
#include "train/per_parameter.h"

namespace frugal::train {
namespace {

struct State {
  at::Tensor exp_avg;
  StateTensors tensors() { return {{"exp_avg", &exp_avg}}; }
};

class Lion : public PerParameter<State> {
 public:
  Lion(std::vector<Parameter> parameters, const Options& options)
      : PerParameter(std::move(parameters)), beta1_(options.number("beta1")), beta2_(options.number("beta2")), weight_decay_(options.number("weight_decay")) {
    for (const Parameter& parameter : parameters_) states_.push_back({zeros_like(parameter)});
  }

 private:
  void update(const Parameter& parameter, const at::Tensor& gradient, State& state, double learning_rate) override {
    float* __restrict w = parameter.tensor.mutable_data_ptr<float>();
    float* __restrict m = state.exp_avg.mutable_data_ptr<float>();
    const float* __restrict g = gradient.const_data_ptr<float>();
    const float rate = learning_rate, keep = 1 - learning_rate * decay_of(parameter, weight_decay_);
    const float old1 = beta1_, new1 = 1 - beta1_, old2 = beta2_, new2 = 1 - beta2_;
    for_each_number(gradient.numel(), [=](int64_t i) {
      const float direction = old1 * m[i] + new1 * g[i];
      w[i] = w[i] * keep - rate * static_cast<float>((direction > 0) - (direction < 0));
      m[i] = old2 * m[i] + new2 * g[i];
    });
  }

  double beta1_, beta2_, weight_decay_;
};

}  // namespace

OptimizerRow lion_row() {
  OptimizerRow row;
  row.id = "lion";
  row.title = "Lion";
  row.leaf = "train";
  row.arxiv = "2302.06675";
  row.summary = "the sign of a mean of gradients: half of AdamW's state";
  row.options = {beta_option("beta1", 0.9, "decay of the mean in the step"), beta_option("beta2", 0.99, "decay of the mean that is kept"),
                 weight_decay_option(0)};
  row.function = make_optimizer<Lion>;
  row.claims = {loss_against_adamw("loss within 1 % of AdamW's after the same steps", {"lion"}, {1e-4, 3e-4, 1e-3}, 1.01),
                state_against_adamw("half of AdamW's state", "lion", 0.505)};
  return row;
}

}  // namespace frugal::train
