// LOMO, Full Parameter Fine-tuning for Large Language Models with Limited Resources (Lv et al., 2023), algorithm 1: SGD whose step is a part of backward,
//   for each parameter, as soon as backward has its gradient:  w <- w - rate (clip(g) + decay w),  and g is dropped
// so no gradients are held (train/fused_backward.h says which are). Their norm is clipped by two passes, as in section 3.3: the first one only takes the norm. In
// one pass, `clip_grad_value` clips each number instead (section 3.3.1).
//
// second_moment: AdaLOMO (Lv et al., 2023, arXiv 2310.10195, algorithm 1), whose update is Adafactor's of each matrix, with its factored second moment, the
// grouped normalization of the update (clip_threshold 1) and a rate in units of the parameter's own size.
//
// Where it differs from the authors' program: that keeps the activations for the second pass, here it computes forward again, so two passes cost twice the
// time of a step, and no memory. State: none; 4 (rows + columns) bytes a matrix with second_moment.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "train/optimizer_rows.h"
#include "train/per_parameter.h"

namespace frugal::train {
namespace {

class Lomo : public Optimizer {
 public:
  Lomo(std::vector<Parameter> parameters, const Options& options)
      : parameters_(checked_parameters(std::move(parameters))), clip_value_(options.number("clip_grad_value")) {
    const bool second_moment = options.boolean("second_moment");
    const OptimizerRow row = second_moment ? adafactor_row() : sgd_row();
    RawOptions given = {{"weight_decay", fmt::format("{}", options.number("weight_decay"))}};
    if (second_moment) given.emplace_back("scale_parameter", "true");
    const Options rule(row.id, row.options, given);
    for (const Parameter& parameter : parameters_) rules_.push_back(row.function({parameter}, rule));
  }

  bool steps_in_backward() const override { return true; }

  void step_of(size_t index, double learning_rate) override {
    const at::NoGradGuard no_grad;
    const at::Tensor& tensor = parameters_[index].tensor;
    if (clip_value_ == 0 || !tensor.grad().defined()) return rules_[index]->step(learning_rate);
    const at::Tensor whole = tensor.grad();
    tensor.mutable_grad() = whole.clamp(-clip_value_, clip_value_);
    rules_[index]->step(learning_rate);
    tensor.mutable_grad() = whole;
  }

  void step(double learning_rate) override {
    for (size_t i = 0; i < parameters_.size(); ++i) step_of(i, learning_rate);
  }

  void for_each_state(const std::function<void(const std::string&, at::Tensor&)>& visit) override {
    for (const auto& rule : rules_) rule->for_each_state(visit);
  }

 private:
  std::vector<Parameter> parameters_;
  std::vector<std::unique_ptr<Optimizer>> rules_;  // of each parameter
  double clip_value_;
};

}  // namespace

OptimizerRow lomo_row() {
  OptimizerRow row;
  row.id = "lomo";
  row.title = "LOMO";
  row.leaf = "train";
  row.arxiv = "2306.09782";
  row.summary = "SGD within backward: each gradient moves its parameter and is gone";
  row.options = {boolean_option("second_moment", false, "AdaLOMO (arXiv 2310.10195): Adafactor's update in place of SGD's"),
                 number_option("clip_grad_value", 0, 0, 1e9, "largest number of a gradient (0: not clipped)"), weight_decay_option(0)};
  row.function = make_optimizer<Lomo>;
  row.claims = {{.statement = "hardly any memory for gradients: a quarter of what SGD holds at most, nearly all of it the tied embedding's",
                 .model = "S",
                 .baseline = {"sgd"},
                 .method = {"lomo"},
                 .metric = "gradient_bytes",
                 .factor = 0.25,
                 .training = {.batch_size = 1, .sequence_len = 128}},
                loss_against_adamw("AdaLOMO: loss within 3 % of AdamW's after the same steps", {"lomo:second_moment=true"}, {1e-2, 3e-2, 1e-1}, 1.03)};
  return row;
}

}  // namespace frugal::train
