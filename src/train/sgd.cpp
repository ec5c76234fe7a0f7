// Stochastic gradient descent with momentum, as torch.optim.SGD: the weight decay is part of the gradient.
//   g <- g + decay w,  m <- momentum m + g,  w <- w - rate m   (nesterov: w <- w - rate (g + momentum m))
//
// State: 4 bytes a parameter, none without momentum. One pass over memory.
#include "base/error.h"
#include "train/optimizer_rows.h"
#include "train/per_parameter.h"

namespace frugal::train {
namespace {

struct State {
  at::Tensor momentum_buffer;
  StateTensors tensors() { return {{"momentum_buffer", &momentum_buffer}}; }
};

class Sgd : public PerParameter<State> {
 public:
  Sgd(std::vector<Parameter> parameters, const Options& options)
      : PerParameter(std::move(parameters)),
        momentum_(options.number("momentum")),
        nesterov_(options.boolean("nesterov")),
        weight_decay_(options.number("weight_decay")) {
    if (nesterov_ && momentum_ == 0) fail(ErrorKind::invalid_input, "sgd: nesterov=true needs momentum above 0, which is its default");
    for (const Parameter& parameter : parameters_) states_.push_back({momentum_ > 0 ? zeros_like(parameter) : at::Tensor()});
  }

 private:
  void update(const Parameter& parameter, const at::Tensor& gradient, State& state, double learning_rate) override {
    float* __restrict w = parameter.tensor.mutable_data_ptr<float>();
    const float* __restrict g = gradient.const_data_ptr<float>();
    const float rate = learning_rate, momentum = momentum_, decay = decay_of(parameter, weight_decay_);
    if (momentum_ == 0) return for_each_number(gradient.numel(), [=](int64_t i) { w[i] -= rate * (g[i] + decay * w[i]); });
    float* __restrict m = state.momentum_buffer.mutable_data_ptr<float>();
    const float of_gradient = nesterov_ ? 1 : 0, of_buffer = nesterov_ ? momentum : 1;
    for_each_number(gradient.numel(), [=](int64_t i) {
      const float with_decay = g[i] + decay * w[i];
      m[i] = momentum * m[i] + with_decay;
      w[i] -= rate * (of_gradient * with_decay + of_buffer * m[i]);
    });
  }

  double momentum_;
  bool nesterov_;
  double weight_decay_;
};

}  // namespace

OptimizerRow sgd_row() {
  OptimizerRow row;
  row.id = "sgd";
  row.title = "SGD with momentum";
  row.leaf = "train";
  row.arxiv = "baseline";
  row.summary = "the gradient, or its running sum";
  row.options = {beta_option("momentum", 0, "decay of the sum of gradients; 0: the gradient alone, no state"),
                 boolean_option("nesterov", false, "look one step ahead along the momentum"), weight_decay_option(0)};
  row.function = make_optimizer<Sgd>;
  row.reference = "baseline";
  return row;
}

}  // namespace frugal::train
