// What moves the parameters: one row of the table per optimizer, each with the state that a resumed run needs.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/method_table.h"
#include "train/parameter.h"

namespace frugal::train {

class Optimizer {
 public:
  virtual ~Optimizer() = default;

  // Moves every parameter by its .grad(); one without a gradient is left alone, with its state. `learning_rate`: the schedule's,
  // before each parameter's scale. Gradients are neither changed nor cleared.
  virtual void step(double learning_rate) = 0;

  // Zeroth-order methods: step() moves by what estimate_gradient found just before, and no .grad() is there. loss() is the mean loss of the step's batch
  // where the parameters are, the same randomness each time; they are back, but for rounding, when it returns. `seed`: the step's own.
  struct GradientEstimate {
    double loss = 0;  // at the parameters, about
    double norm = 0;  // of the gradient along the direction that was tried
  };
  virtual bool wants_losses() const { return false; }
  virtual GradientEstimate estimate_gradient(uint64_t seed, const std::function<double()>& loss) { return {}; }

  // Methods that choose what trains: told of each step (from 0) before it begins, right after the one before, so that a checkpoint has the state of the step
  // that comes next; and of a run that is resumed before its state is loaded.
  virtual void prepare_step(int64_t step) {}

  // Methods that move a parameter while backward goes on (train/fused_backward.h): by step_of in place of step(), of the parameter that was `index`-th at
  // construction, as soon as its .grad() is there, which the loop then drops.
  virtual bool steps_in_backward() const { return false; }
  virtual void step_of(size_t index, double learning_rate) {}

  // All that a resumed run needs beside the parameters, under names like "exp_avg.<parameter>"; counts are tensors of one number.
  // It is all there from construction on: loading copies into it.
  virtual void for_each_state(const std::function<void(const std::string& name, at::Tensor& state)>& visit) = 0;
  uint64_t state_bytes();

  // Second-order methods: whether the loop shall, after step `step` (from 0), run a backward of the mean loss over `batch_tokens`
  // tokens against labels drawn from the model, and call update_hessian, which reads .grad().
  virtual bool wants_hessian(int64_t step) const { return false; }
  virtual void update_hessian(double batch_tokens) {}

  // Methods that average their parameters: moves them to the point that is evaluated and given to others, and back, to the bit, to the one where
  // gradients are taken, where a new optimizer is and a checkpoint is written. A step at the point of evaluation is Error{internal}.
  virtual void to_evaluation_point() {}
  virtual void to_training_point() {}
};

// Copies a checkpoint's state into the optimizer. Throws Error{invalid_input} that begins with `where` when it is not the state of these parameters.
void load_state(Optimizer& optimizer, const std::map<std::string, at::Tensor>& state, const std::string& where);
// Copies the tensor of that name, with the same promise.
void copy_named(const std::map<std::string, at::Tensor>& from, const std::string& name, at::Tensor& to, const std::string& where);

// Throws Error{unsupported} for a parameter that is not a contiguous float32 tensor on the CPU, Error{invalid_input} for two of one name.
using OptimizerFactory = std::unique_ptr<Optimizer> (*)(std::vector<Parameter> parameters, const Options& options);
const MethodTable<OptimizerFactory>& optimizer_table();

}  // namespace frugal::train
