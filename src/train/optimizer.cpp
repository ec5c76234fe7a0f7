#include "train/optimizer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <set>

#include "base/error.h"
#include "train/optimizer_rows.h"
#include "train/per_parameter.h"

namespace frugal::train {

uint64_t Optimizer::state_bytes() {
  uint64_t bytes = 0;
  for_each_state([&](const std::string&, at::Tensor& state) { bytes += state.nbytes(); });
  return bytes;
}

const MethodTable<OptimizerFactory>& optimizer_table() {
  static const MethodTable<OptimizerFactory> table({adamw_row(), adafactor_row(), adam8bit_row(), lion_row(), sophia_row(), muon_row(), schedule_free_row(),
                                                    sgd_row(), galore_row(), mezo_row(), lomo_row(), fp8_lm_row()});
  return table;
}

void copy_named(const std::map<std::string, at::Tensor>& from, const std::string& name, at::Tensor& to, const std::string& where) {
  const auto found = from.find(name);
  if (found == from.end()) fail(ErrorKind::invalid_input, "{}: is of another run: it has no {}", where, name);
  if (found->second.sizes() != to.sizes() || found->second.scalar_type() != to.scalar_type()) {
    fail(ErrorKind::invalid_input, "{}: is of another run: {} has another shape or type", where, name);
  }
  const at::NoGradGuard no_grad;
  to.copy_(found->second);
}

void load_state(Optimizer& optimizer, const std::map<std::string, at::Tensor>& state, const std::string& where) {
  size_t count = 0;
  optimizer.for_each_state([&](const std::string&, at::Tensor&) { ++count; });
  if (state.size() != count) fail(ErrorKind::invalid_input, "{}: is of another run: {} optimizer states, here are {}", where, state.size(), count);
  optimizer.for_each_state([&](const std::string& name, at::Tensor& tensor) { copy_named(state, name, tensor, where); });
}

Claim loss_against_adamw(std::string statement, std::vector<std::string> method, std::vector<double> rates, double factor) {
  return {.statement = std::move(statement),
          .model = "T",
          .baseline = {"adamw"},
          .method = std::move(method),
          .metric = "loss",
          .factor = factor,
          .training = {.steps = 100, .batch_size = 4, .new_blocks = 2, .baseline_rates = {1e-3, 2e-3, 4e-3}, .method_rates = std::move(rates)}};
}

Claim state_against_adamw(std::string statement, std::string method, double factor) {
  return {.statement = std::move(statement),
          .model = "T",
          .baseline = {"adamw"},
          .method = {std::move(method)},
          .metric = "state_bytes",
          .factor = factor,
          .training = {.new_blocks = 2}};
}

OptionSpec beta_option(std::string name, double fallback, std::string help) { return number_option(std::move(name), fallback, 0, 0.999999, std::move(help)); }
OptionSpec eps_option(double fallback) { return number_option("eps", fallback, 0, 1, "added to the denominator"); }
OptionSpec weight_decay_option(double fallback) {
  return number_option("weight_decay", fallback, 0, 100, "share of each matrix that a step takes away, times the learning rate");
}

std::vector<Parameter> checked_parameters(std::vector<Parameter> parameters) {
  std::set<std::string_view> names;
  for (const Parameter& parameter : parameters) {
    const at::Tensor& tensor = parameter.tensor;
    if (!tensor.defined()) fail(ErrorKind::internal, "parameter {} has no tensor", printable(parameter.name));
    if (tensor.scalar_type() != at::kFloat || !tensor.is_contiguous() || !tensor.is_cpu()) {
      fail(ErrorKind::unsupported, "parameter {}: optimizers move contiguous float32 tensors on the CPU, this one is {}{} on {}", printable(parameter.name),
           tensor.is_contiguous() ? "" : "not contiguous, ", c10::toString(tensor.scalar_type()), tensor.device().str());
    }
    if (!names.insert(parameter.name).second) fail(ErrorKind::invalid_input, "two parameters are named {}", printable(parameter.name));
  }
  return parameters;
}

at::Tensor gradient_of(const Parameter& parameter) {
  const at::Tensor& gradient = parameter.tensor.grad();
  if (!gradient.defined()) return {};
  if (gradient.layout() != at::kStrided) fail(ErrorKind::unsupported, "parameter {} has a sparse gradient", printable(parameter.name));
  return gradient.contiguous();
}

bool is_hidden_matrix(const Parameter& parameter) {
  const auto named = [&](std::string_view part) { return parameter.name.find(part) != std::string::npos; };
  return parameter.tensor.dim() == 2 && !named("embed_tokens") && !named("lm_head");
}

at::Tensor zeros(at::IntArrayRef shape, at::ScalarType type) { return at::zeros(shape, type); }
at::Tensor zeros_like(const Parameter& parameter) { return zeros(parameter.tensor.sizes()); }

double increment(at::Tensor& count) { return *count.mutable_data_ptr<float>() += 1; }

}  // namespace frugal::train
