// An optimizer that treats each parameter by itself: the loop over them, their state, and the loop over their numbers.
#pragma once

#include <c10/core/GradMode.h>

#include <utility>

#include "base/team.h"
#include "train/optimizer.h"

namespace frugal::train {

// The parameters if every optimizer can move them: see OptimizerFactory.
std::vector<Parameter> checked_parameters(std::vector<Parameter> parameters);
// The gradient as contiguous numbers; undefined where there is none.
at::Tensor gradient_of(const Parameter& parameter);

// A matrix inside of the network: not the token embedding, not the head, not a norm or bias.
bool is_hidden_matrix(const Parameter& parameter);

// Numbers of a state, zero at the start: like the parameter, or of another shape.
at::Tensor zeros_like(const Parameter& parameter);
at::Tensor zeros(at::IntArrayRef shape, at::ScalarType type = at::kFloat);
// A count, as torch keeps it: a float32 tensor of one number. Returns the new value.
double increment(at::Tensor& count);

// The weight decay that applies to a parameter.
inline double decay_of(const Parameter& parameter, double weight_decay) { return parameter.decays ? weight_decay : 0; }

// body(i) for every i < count, split over the compute team. What it computes must be the same for every split: each number by itself.
template <typename Body>
void for_each_number(int64_t count, const Body& body) {
  parallel_for(count, 16'384, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

using StateTensors = std::vector<std::pair<const char*, at::Tensor*>>;  // {"exp_avg", &exp_avg}, ...

// State: the tensors of one parameter, which its tensors() lists; undefined ones are left out.
template <typename State>
class PerParameter : public Optimizer {
 public:
  explicit PerParameter(std::vector<Parameter> parameters) : parameters_(checked_parameters(std::move(parameters))) {}

  // Large tensors one after another, each on the whole team; small ones shared out among it, where a fork for each would cost more.
  void step(double learning_rate) override {
    const c10::NoGradGuard guard;
    begin_step(learning_rate);
    const auto step_of = [&](size_t i) {
      const c10::NoGradGuard guard_of_thread;
      const at::Tensor gradient = gradient_of(parameters_[i]);
      if (gradient.defined()) update(parameters_[i], gradient, states_[i], learning_rate * parameters_[i].learning_rate_scale);
    };
    std::vector<size_t> small;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      if (parameters_[i].tensor.numel() < 1 << 15)
        small.push_back(i);
      else
        step_of(i);
    }
    parallel_for(static_cast<int64_t>(small.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) step_of(small[i]);
    });
  }

  void for_each_state(const std::function<void(const std::string&, at::Tensor&)>& visit) override {
    for (size_t i = 0; i < parameters_.size(); ++i) {
      for (auto& [kind, tensor] : states_[i].tensors()) {
        if (tensor->defined()) visit(std::string(kind) + "." + parameters_[i].name, *tensor);
      }
    }
  }

 protected:
  virtual void begin_step(double learning_rate) {}
  // Of one parameter, on any thread of the team.
  virtual void update(const Parameter& parameter, const at::Tensor& gradient, State& state, double learning_rate) = 0;

  std::vector<Parameter> parameters_;
  std::vector<State> states_;  // one per parameter, made by the optimizer's constructor
};

}  // namespace frugal::train
