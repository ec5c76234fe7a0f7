// Sophia: A Scalable Stochastic Second-order Optimizer for Language Model Pre-training (Liu et al., 2023), Sophia-G:
//   m <- beta1 m + (1 - beta1) g
//   h <- beta2 h + (1 - beta2) B g'^2   every k steps: g' is the gradient of the mean loss of B tokens against labels that the model
//                                       itself drew, B g'^2 the Gauss-Newton-Bartlett estimate of the Hessian's diagonal
//   w <- (1 - rate decay) w - rate sign(m) min(|m| / (rho h + 1e-15), 1)
//
// As the published program: h is first estimated after the k-th step, and until then every number moves by the rate; B is a
// factor of h here, of rho there. State: 8 bytes a parameter. Cost: one pass over memory, and a forward and backward every k steps.
#include <algorithm>
#include <cmath>

#include "train/optimizer_rows.h"
#include "train/per_parameter.h"

namespace frugal::train {
namespace {

struct State {
  at::Tensor exp_avg, hessian;
  StateTensors tensors() { return {{"exp_avg", &exp_avg}, {"hessian", &hessian}}; }
};

class Sophia : public PerParameter<State> {
 public:
  Sophia(std::vector<Parameter> parameters, const Options& options)
      : PerParameter(std::move(parameters)),
        beta1_(options.number("beta1")),
        beta2_(options.number("beta2")),
        rho_(options.number("rho")),
        weight_decay_(options.number("weight_decay")),
        interval_(options.integer("hessian_interval")) {
    for (const Parameter& parameter : parameters_) states_.push_back({zeros_like(parameter), zeros_like(parameter)});
  }

  bool wants_hessian(int64_t step) const override { return step % interval_ == interval_ - 1; }

  void update_hessian(double batch_tokens) override {
    const c10::NoGradGuard guard;
    for (size_t k = 0; k < parameters_.size(); ++k) {
      const at::Tensor gradient = gradient_of(parameters_[k]);
      if (!gradient.defined()) continue;
      float* __restrict h = states_[k].hessian.mutable_data_ptr<float>();
      const float* __restrict g = gradient.const_data_ptr<float>();
      const float old = beta2_, fresh = (1 - beta2_) * batch_tokens;
      for_each_number(gradient.numel(), [=](int64_t i) { h[i] = old * h[i] + fresh * g[i] * g[i]; });
    }
  }

 private:
  void update(const Parameter& parameter, const at::Tensor& gradient, State& state, double learning_rate) override {
    float* __restrict w = parameter.tensor.mutable_data_ptr<float>();
    float* __restrict m = state.exp_avg.mutable_data_ptr<float>();
    const float* __restrict h = state.hessian.const_data_ptr<float>();
    const float* __restrict g = gradient.const_data_ptr<float>();
    const float rate = learning_rate, keep = 1 - learning_rate * decay_of(parameter, weight_decay_);
    const float old = beta1_, fresh = 1 - beta1_, rho = rho_;
    for_each_number(gradient.numel(), [=](int64_t i) {
      m[i] = old * m[i] + fresh * g[i];
      w[i] = w[i] * keep - rate * std::copysign(std::min(std::abs(m[i]) / (rho * h[i] + 1e-15f), 1.0f), m[i]);
    });
  }

  double beta1_, beta2_, rho_, weight_decay_;
  int64_t interval_;
};

}  // namespace

OptimizerRow sophia_row() {
  OptimizerRow row;
  row.id = "sophia";
  row.title = "Sophia-G";
  row.leaf = "train";
  row.arxiv = "2305.14342";
  row.summary = "momentum over an estimate of the Hessian's diagonal, each step clipped";
  row.options = {beta_option("beta1", 0.965, "decay of the mean of gradients"), beta_option("beta2", 0.99, "decay of the mean of the Hessian's estimates"),
                 number_option("rho", 0.04, 1e-6, 1e6, "factor of the Hessian: the larger, the fewer numbers are clipped"), weight_decay_option(0.1),
                 integer_option("hessian_interval", 10, 1, 100'000, "steps from one estimate of the Hessian to the next")};
  row.function = make_optimizer<Sophia>;
  row.claims = {loss_against_adamw("lower loss than AdamW after the same steps", {"sophia"}, {8e-4, 1.6e-3, 3.2e-3})};
  return row;
}

}  // namespace frugal::train
