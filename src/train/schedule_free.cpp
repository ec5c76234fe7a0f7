// The Road Less Scheduled (Defazio et al., 2024), AdamW's form: instead of a schedule that falls, the average of the iterates. Gradients
// are taken at y, a point between the fast iterate z and their average x, which is what is evaluated:
//   v <- beta2 v + (1 - beta2) g^2,  d = g / (sqrt(v / (1 - beta2^t)) + eps) + decay y
//   z <- z - rate d,  x <- (1 - c) x + c z,  y = beta1 x + (1 - beta1) z,  c = rate_max^2 / sum of rate_max^2
//
// As the authors' program, x is not stored: parameters are y, and x = y + (1 - 1 / beta1) (z - y) when it is asked for. The schedule
// is constant_with_warmup. State: 8 bytes a parameter. One pass over memory.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "train/adamw.h"
#include "train/optimizer_rows.h"

namespace frugal::train {
namespace {

struct State {
  at::Tensor z, exp_avg_sq;
  StateTensors tensors() { return {{"z", &z}, {"exp_avg_sq", &exp_avg_sq}}; }
};

class ScheduleFree : public PerParameter<State> {
 public:
  ScheduleFree(std::vector<Parameter> parameters, const Options& options) : PerParameter(std::move(parameters)), settings_(AdamSettings::of(options)) {
    for (const Parameter& parameter : parameters_) states_.push_back({parameter.tensor.detach().clone(), zeros_like(parameter)});
  }

  void for_each_state(const std::function<void(const std::string&, at::Tensor&)>& visit) override {
    visit("step", step_);
    visit("lr_max", lr_max_);
    visit("weight_sum", weight_sum_);
    PerParameter::for_each_state(visit);
  }

  // The training point is kept meanwhile and set back: computed back it would differ in the last bits.
  void to_evaluation_point() override {
    if (!training_point_.empty()) return;
    const c10::NoGradGuard guard;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      training_point_.push_back(parameters_[i].tensor.detach().clone());
      parameters_[i].tensor.detach().lerp_(states_[i].z, 1 - 1 / settings_.beta1);
    }
  }
  void to_training_point() override {
    const c10::NoGradGuard guard;
    for (size_t i = 0; i < training_point_.size(); ++i) parameters_[i].tensor.detach().copy_(training_point_[i]);
    training_point_.clear();
  }

 private:
  void begin_step(double learning_rate) override {
    FRUGAL_ASSERT(training_point_.empty());
    double& lr_max = *lr_max_.mutable_data_ptr<double>();
    double& weight_sum = *weight_sum_.mutable_data_ptr<double>();
    lr_max = std::max(lr_max, learning_rate);
    weight_sum += lr_max * lr_max;
    share_ = weight_sum > 0 ? lr_max * lr_max / weight_sum : 0;
    correction_ = 1 / (1 - std::pow(settings_.beta2, *step_.mutable_data_ptr<double>() += 1));
  }

  void update(const Parameter& parameter, const at::Tensor& gradient, State& state, double learning_rate) override {
    float* __restrict y = parameter.tensor.mutable_data_ptr<float>();
    float* __restrict z = state.z.mutable_data_ptr<float>();
    float* __restrict v = state.exp_avg_sq.mutable_data_ptr<float>();
    const float* __restrict g = gradient.const_data_ptr<float>();
    const float old = settings_.beta2, fresh = 1 - settings_.beta2, correction = correction_, eps = settings_.eps;
    const float decay = decay_of(parameter, settings_.weight_decay), share = share_;
    const float rate = learning_rate, rate_of_y = learning_rate * (settings_.beta1 * (1 - share_) - 1);
    for_each_number(gradient.numel(), [=](int64_t i) {
      v[i] = old * v[i] + fresh * g[i] * g[i];
      const float direction = g[i] / (std::sqrt(v[i] * correction) + eps) + decay * y[i];
      y[i] = y[i] + share * (z[i] - y[i]) + rate_of_y * direction;
      z[i] -= rate * direction;
    });
  }

  AdamSettings settings_;
  at::Tensor step_ = zeros({}, at::kDouble), lr_max_ = zeros({}, at::kDouble), weight_sum_ = zeros({}, at::kDouble);
  std::vector<at::Tensor> training_point_;  // while at the point of evaluation
  double share_ = 0, correction_ = 1;       // of this step
};

}  // namespace

OptimizerRow schedule_free_row() {
  OptimizerRow row;
  row.id = "schedule-free";
  row.title = "Schedule-free AdamW";
  row.leaf = "train";
  row.arxiv = "2405.15682";
  row.summary = "the average of the iterates in place of a schedule that falls";
  row.options = {number_option("beta1", 0.9, 0.01, 0.999999, "how far from the last iterate to the average gradients are taken"),
                 beta_option("beta2", 0.999, "decay of the mean of squared gradients"), eps_option(1e-8), weight_decay_option(0)};
  row.function = make_optimizer<ScheduleFree>;
  row.claims = {loss_against_adamw("loss within 1 % of AdamW's under a schedule that falls, without one",
                                   {"schedule-free", "constant_with_warmup:warmup_ratio=0.1"}, {2e-3, 5e-3, 1e-2}, 1.01)};
  return row;
}

}  // namespace frugal::train
