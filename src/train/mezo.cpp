// Fine-Tuning Language Models with Just Forward Passes (Malladi et al., 2023), algorithm 1: simultaneous perturbation (SPSA) in place.
//   z ~ N(0, 1) from a seed,  g = (L(w + eps z) - L(w - eps z)) / (2 eps),  w <- w - rate (g z + decay w)
//
// No gradient and no activations are kept: the memory of inference. z is drawn again from its seed each time, as in the authors' program, whose decay (on
// matrices only) this is too. Cost: two forward passes and four passes over the parameters a step; many more steps than with gradients, at rates around 1e-6.
// State: none. As there, w + eps z - 2 eps z + eps z is w but for the rounding of three sums.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "train/optimizer_rows.h"
#include "train/per_parameter.h"

namespace frugal::train {
namespace {

constexpr int64_t kNumbersAtOnce = 1 << 20;

class Mezo : public Optimizer {
 public:
  Mezo(std::vector<Parameter> parameters, const Options& options)
      : parameters_(checked_parameters(std::move(parameters))), eps_(options.number("eps")), weight_decay_(options.number("weight_decay")) {}

  bool wants_losses() const override { return true; }

  GradientEstimate estimate_gradient(uint64_t seed, const std::function<double()>& loss) override {
    seed_ = seed;
    perturb(eps_);
    const double above = loss();
    perturb(-2 * eps_);
    const double below = loss();
    perturb(eps_);
    projected_ = (above - below) / (2 * eps_);
    return {(above + below) / 2, std::abs(projected_)};
  }

  void step(double learning_rate) override {
    for_each_direction([&](const Parameter& parameter, at::Tensor weights, const at::Tensor& z) {
      const double rate = learning_rate * parameter.learning_rate_scale;
      weights.mul_(1 - rate * decay_of(parameter, weight_decay_)).sub_(z, rate * projected_);
    });
    projected_ = 0;
  }

  void for_each_state(const std::function<void(const std::string&, at::Tensor&)>&) override {}

 private:
  void perturb(double size) {
    for_each_direction([&](const Parameter&, at::Tensor weights, const at::Tensor& z) { weights.add_(z, size); });
  }

  // body(parameter, some of its numbers, their part of z), in order.
  template <typename Body>
  void for_each_direction(const Body& body) {
    const at::NoGradGuard no_grad;
    const at::Generator generator = at::detail::createCPUGenerator(seed_);
    for (const Parameter& parameter : parameters_) {
      const at::Tensor numbers = parameter.tensor.detach().flatten();
      for (int64_t begin = 0; begin < numbers.numel(); begin += kNumbersAtOnce) {
        const int64_t count = std::min(kNumbersAtOnce, numbers.numel() - begin);
        body(parameter, numbers.narrow(0, begin, count), at::empty({count}, at::kFloat).normal_(0, 1, generator));
      }
    }
  }

  std::vector<Parameter> parameters_;
  double eps_, weight_decay_, projected_ = 0;
  uint64_t seed_ = 0;  // of z
};

}  // namespace

OptimizerRow mezo_row() {
  OptimizerRow row;
  row.id = "mezo";
  row.title = "MeZO";
  row.leaf = "train";
  row.arxiv = "2305.17333";
  row.summary = "two losses along a random direction in place of a gradient: the memory of inference";
  row.options = {number_option("eps", 1e-3, 1e-8, 1, "length of the step to either side, in units of z"), weight_decay_option(0)};
  row.function = make_optimizer<Mezo>;
  row.claims = {{.statement = "loss under the untuned model's, without a gradient",
                 .model = "T",
                 .baseline = {},
                 .method = {"mezo"},
                 .metric = "loss",
                 .training = {.steps = 200, .batch_size = 4, .text = "faq", .baseline_rates = {}, .method_rates = {1e-5, 1e-4, 1e-3}}}};
  return row;
}

}  // namespace frugal::train
