// Muon is Scalable for LLM Training (Liu et al., 2025), after Jordan's Muon (2024). For matrices inside of the network:
//   m <- mu m + (1 - mu) g,  u = (1 - mu) g + mu m,  O = NewtonSchulz(u): about u (u^T u)^-1/2, all singular values near 1
//   w <- (1 - rate decay) w - 0.2 sqrt(max(rows, columns)) rate O
// so that a step has the size of AdamW's and its rates can be kept. All other parameters, the token embedding and the head: AdamW.
//
// As torch.optim.Muon(adjust_lr_fn="match_rms_adamw"), but the iteration is in float32 instead of bfloat16: the processors this runs
// on multiply floats faster, and it is closer to what is meant. State: 4 bytes a parameter of such matrices, 8 of others. Cost: 5
// iterations of 2 (2 min + max) min^2 operations a matrix.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "train/adamw.h"
#include "train/optimizer_rows.h"
#include "train/sums.h"

namespace frugal::train {
namespace {

// Five steps of x <- a x + (b x x^T + c (x x^T)^2) x, which move every singular value of at most 1 to about 0.7 to 1.2.
at::Tensor orthogonalized(const at::Tensor& matrix, int64_t steps) {
  constexpr double a = 3.4445, b = -4.7750, c = 2.0315;
  const bool tall = matrix.size(0) > matrix.size(1);
  at::Tensor x = tall ? matrix.t() : matrix;
  x = x / std::max(std::sqrt(sum_of_squares({&matrix, 1})), 1e-7);
  for (int64_t step = 0; step < steps; ++step) {
    const at::Tensor gram = at::matmul(x, x.t());
    x = at::addmm(x, at::addmm(gram, gram, gram, b, c), x, a, 1);
  }
  return tall ? x.t() : x;
}

struct State {
  at::Tensor momentum_buffer;
  AdamState adam;
  StateTensors tensors() {
    StateTensors all = adam.tensors();
    all.push_back({"momentum_buffer", &momentum_buffer});
    return all;
  }
};

class Muon : public PerParameter<State> {
 public:
  Muon(std::vector<Parameter> parameters, const Options& options)
      : PerParameter(std::move(parameters)),
        momentum_(options.number("momentum")),
        nesterov_(options.boolean("nesterov")),
        steps_(options.integer("ns_steps")),
        adam_(AdamSettings::of(options)) {
    for (const Parameter& parameter : parameters_) {
      states_.push_back(is_hidden_matrix(parameter) ? State{zeros_like(parameter), {}} : State{{}, AdamState(parameter.tensor.sizes())});
    }
  }

 private:
  void update(const Parameter& parameter, const at::Tensor& gradient, State& state, double learning_rate) override {
    AdamSettings adam = adam_;
    adam.weight_decay = decay_of(parameter, adam.weight_decay);
    if (state.adam.step.defined()) return adamw_update(parameter.tensor, gradient, state.adam, adam, learning_rate);

    state.momentum_buffer.lerp_(gradient, 1 - momentum_);
    const at::Tensor direction = orthogonalized(nesterov_ ? gradient.lerp(state.momentum_buffer, momentum_) : state.momentum_buffer, steps_);
    const at::Tensor weights = parameter.tensor.detach();
    const double longer = static_cast<double>(std::max(weights.size(0), weights.size(1)));
    weights.mul_(1 - learning_rate * adam.weight_decay).add_(direction, -0.2 * std::sqrt(longer) * learning_rate);
  }

  double momentum_;
  bool nesterov_;
  int64_t steps_;
  AdamSettings adam_;
};

}  // namespace

OptimizerRow muon_row() {
  OptimizerRow row;
  row.id = "muon";
  row.title = "Muon";
  row.leaf = "train";
  row.arxiv = "2502.16982";
  row.summary = "momentum with all its singular values made equal; AdamW for what is no matrix, the embedding and the head";
  row.options = {beta_option("momentum", 0.95, "decay of the mean of gradients"),
                 boolean_option("nesterov", true, "look one step ahead along the momentum"),
                 integer_option("ns_steps", 5, 1, 99, "iterations of Newton and Schulz"),
                 beta_option("beta1", 0.9, "AdamW's part: decay of the mean of gradients"),
                 beta_option("beta2", 0.95, "AdamW's part: decay of the mean of their squares"),
                 eps_option(1e-8),
                 weight_decay_option(0.1)};
  row.function = make_optimizer<Muon>;
  row.claims = {loss_against_adamw("lower loss than AdamW after the same steps", {"muon"}, {1e-3, 2e-3, 4e-3})};
  return row;
}

}  // namespace frugal::train
