// GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection (Zhao et al., 2024). For matrices inside of the network: Adam
// on the gradient projected to its leading singular vectors on the shorter side, which are found anew every T steps:
//   R = P^T G (or G P),  m, v of R as in Adam,  w <- w - rate scale P (m^ / (sqrt(v) + eps)),  w <- (1 - rate decay) w
// All other parameters, the token embedding and the head: AdamW.
//
// As the authors' program: moments are kept when P changes, and eps is added before the bias of v is corrected. State of an out x in
// matrix, of rank r: 4 r (2 max(out, in) + min(out, in)) bytes. Cost: a singular value decomposition of each gradient every T steps,
// two products of 2 r out in operations else. LAPACK's decomposition depends in its last bits on the number of threads.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "train/adamw.h"
#include "train/optimizer_rows.h"

namespace frugal::train {
namespace {

struct State {
  AdamState adam;        // of the projected gradient, or of the parameter
  at::Tensor projector;  // of a tall matrix [rank, in], of others [out, rank]; undefined: not projected
  StateTensors tensors() {
    StateTensors all = adam.tensors();
    all.push_back({"projector", &projector});
    return all;
  }
};

bool is_tall(const at::Tensor& matrix) { return matrix.size(0) >= matrix.size(1); }

class GaLore : public PerParameter<State> {
 public:
  GaLore(std::vector<Parameter> parameters, const Options& options)
      : PerParameter(std::move(parameters)), interval_(options.integer("update_proj_gap")), scale_(options.number("scale")), adam_(AdamSettings::of(options)) {
    for (const Parameter& parameter : parameters_) {
      const at::Tensor& tensor = parameter.tensor;
      if (!is_hidden_matrix(parameter)) {
        states_.push_back({AdamState(tensor.sizes()), {}});
        continue;
      }
      const int64_t out = tensor.size(0), in = tensor.size(1), rank = std::min({options.integer("rank"), out, in});
      if (is_tall(tensor))
        states_.push_back({AdamState({out, rank}), zeros({rank, in})});
      else
        states_.push_back({AdamState({rank, in}), zeros({out, rank})});
    }
  }

 private:
  void update(const Parameter& parameter, const at::Tensor& gradient, State& state, double learning_rate) override {
    AdamSettings settings = adam_;
    settings.weight_decay = decay_of(parameter, settings.weight_decay);
    if (!state.projector.defined()) return adamw_update(parameter.tensor, gradient, state.adam, settings, learning_rate);

    const double step = increment(state.adam.step);
    const bool tall = is_tall(gradient);
    if (static_cast<int64_t>(step - 1) % interval_ == 0) project_anew(gradient, state.projector);
    const at::Tensor projected = tall ? at::matmul(gradient, state.projector.t()) : at::matmul(state.projector.t(), gradient);
    state.adam.exp_avg.mul_(settings.beta1).add_(projected, 1 - settings.beta1);
    state.adam.exp_avg_sq.mul_(settings.beta2).addcmul_(projected, projected, 1 - settings.beta2);
    const at::Tensor direction = state.adam.exp_avg / (state.adam.exp_avg_sq.sqrt() + settings.eps);
    const double rate = learning_rate * std::sqrt(1 - std::pow(settings.beta2, step)) / (1 - std::pow(settings.beta1, step));
    const at::Tensor weights = parameter.tensor.detach();
    weights.sub_(tall ? at::matmul(direction, state.projector) : at::matmul(state.projector, direction), rate * scale_);
    weights.mul_(1 - learning_rate * settings.weight_decay);
  }

  static void project_anew(const at::Tensor& gradient, at::Tensor& projector) {
    const auto [u, s, vh] = at::linalg_svd(gradient, /*full_matrices=*/false);
    projector.copy_(is_tall(gradient) ? vh.slice(0, 0, projector.size(0)) : u.slice(1, 0, projector.size(1)));
  }

  int64_t interval_;
  double scale_;
  AdamSettings adam_;
};

}  // namespace

OptimizerRow galore_row() {
  OptimizerRow row;
  row.id = "galore";
  row.title = "GaLore";
  row.leaf = "train";
  row.arxiv = "2403.03507";
  row.summary = "Adam in the space of a gradient's leading singular vectors";
  row.options = {integer_option("rank", 128, 1, 100'000, "of the projected gradient"),
                 integer_option("update_proj_gap", 200, 1, 1'000'000, "steps from one projection to the next"),
                 number_option("scale", 0.25, 1e-6, 1e3, "factor of the step of projected matrices"),
                 beta_option("beta1", 0.9, "decay of the mean of gradients"),
                 beta_option("beta2", 0.999, "decay of the mean of their squares"),
                 eps_option(1e-6),
                 weight_decay_option(0)};
  row.function = make_optimizer<GaLore>;
  row.claims = {
      loss_against_adamw("loss within 3 % of AdamW's at a rank of a quarter of the width", {"galore:rank=48,update_proj_gap=50"}, {5e-3, 1e-2, 2e-2}, 1.03),
      state_against_adamw("less state than AdamW at that rank", "galore:rank=48", 1)};
  return row;
}

}  // namespace frugal::train
