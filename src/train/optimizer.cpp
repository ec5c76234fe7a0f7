#include "train/optimizer.h"

#include <ATen/ATen.h>

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
  static const MethodTable<OptimizerFactory> table(
      {adamw_row(), adafactor_row(), adam8bit_row(), lion_row(), sophia_row(), muon_row(), schedule_free_row(), sgd_row(), galore_row()});
  return table;
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
