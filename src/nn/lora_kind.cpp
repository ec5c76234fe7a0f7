#include "nn/lora_kind.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <numbers>

#include "base/error.h"
#include "ops/ops.h"
#include "ops/packed_linear.h"

namespace frugal::nn {
namespace {

bool is_float(const Tensor& tensor, at::IntArrayRef shape) { return tensor.scalar_type() == at::kFloat && tensor.is_contiguous() && tensor.sizes() == shape; }

Tensor dropped(const std::shared_ptr<AdapterDropout>& dropout, const Tensor& x) { return dropout ? dropout->apply(x) : x; }

}  // namespace

AdapterDropout::AdapterDropout(double probability, uint64_t seed)
    : probability_(probability), generator_(std::make_unique<at::Generator>(at::detail::createCPUGenerator(seed))) {
  FRUGAL_ASSERT(probability >= 0 && probability < 1);
}
AdapterDropout::~AdapterDropout() = default;

Tensor AdapterDropout::apply(const Tensor& x) {
  if (!active()) return x;
  return x * at::empty(x.sizes(), at::kFloat).bernoulli_(1 - probability_, *generator_).div_(1 - probability_).to(x.scalar_type());
}

void AdapterDropout::seed(uint64_t seed) { generator_->set_current_seed(seed); }
Tensor AdapterDropout::state() const { return generator_->get_state(); }

void AdapterDropout::set_state(const Tensor& state) { generator_->set_state(state); }

LoraKind::LoraKind(Tensor a, Tensor b, double scale, std::shared_ptr<AdapterDropout> dropout, int64_t group)
    : a_(std::move(a)), b_(std::move(b)), scale_(scale), dropout_(std::move(dropout)), group_(group) {
  FRUGAL_ASSERT(a_.dim() == 2 && b_.dim() == 2 && is_float(a_, a_.sizes()) && is_float(b_, {b_.size(0), a_.size(0)}));
}

Tensor LoraKind::forward(const Activation& input) const {
  Tensor x = dropped(dropout_, input.values());
  if (group_ > 1) x = x.view({x.size(0), a_.size(1), group_}).mean(2) * static_cast<double>(a_.size(1));
  const Tensor low = ops::float_linear(x, a_, invariant_);
  return ops::float_linear(low * scale_, b_, invariant_);
}

Tensor LoraKind::by_group() const {
  const double pooled = group_ > 1 ? static_cast<double>(a_.size(1)) / static_cast<double>(group_) : 1;
  return at::matmul(b_, a_) * (scale_ * pooled);
}

Tensor LoraKind::dense() const { return group_ > 1 ? by_group().repeat_interleave(group_, 1) : by_group(); }

std::string LoraKind::describe() const { return group_ > 1 ? fmt::format("QA-LoRA r{} g{}", rank(), group_) : fmt::format("LoRA r{}", rank()); }

void LoraKind::for_each_adapter_tensor(const std::string& module, const TensorVisitor& visit) {
  visit(module + ".lora_A.weight", a_);
  visit(module + ".lora_B.weight", b_);
}

AdaLoraKind::AdaLoraKind(Tensor a, Tensor b, Tensor e, double scale, std::shared_ptr<AdapterDropout> dropout)
    : a_(std::move(a)), b_(std::move(b)), e_(std::move(e)), scale_(scale), dropout_(std::move(dropout)) {
  FRUGAL_ASSERT(is_float(a_, {a_.size(0), a_.size(1)}) && is_float(b_, {b_.size(0), a_.size(0)}) && is_float(e_, {a_.size(0), 1}));
}

Tensor AdaLoraKind::forward(const Activation& input) const {
  const Tensor& x = input.values();
  if (a_.size(0) == 0) return at::zeros({x.size(0), out_features()}, at::kFloat);
  const Tensor low = ops::float_linear(dropped(dropout_, x), a_, invariant_);
  return ops::float_linear(low * (e_.flatten() * scale_), b_, invariant_);
}

Tensor AdaLoraKind::dense() const { return at::matmul(b_, a_ * e_) * scale_; }

std::string AdaLoraKind::describe() const { return fmt::format("AdaLoRA r{}", a_.size(0)); }

void AdaLoraKind::for_each_adapter_tensor(const std::string& module, const TensorVisitor& visit) {
  visit(module + ".lora_A", a_);
  visit(module + ".lora_B", b_);
  visit(module + ".lora_E", e_);
}

VeraKind::VeraKind(Tensor a, Tensor b, Tensor lambda_d, Tensor lambda_b, std::shared_ptr<AdapterDropout> dropout)
    : a_(std::move(a)), b_(std::move(b)), lambda_d_(std::move(lambda_d)), lambda_b_(std::move(lambda_b)), dropout_(std::move(dropout)) {
  FRUGAL_ASSERT(is_float(a_, {a_.size(0), a_.size(1)}) && is_float(b_, {b_.size(0), a_.size(0)}));
  FRUGAL_ASSERT(is_float(lambda_d_, {a_.size(0)}) && is_float(lambda_b_, {b_.size(0)}));
}

Tensor VeraKind::forward(const Activation& input) const {
  const Tensor low = ops::float_linear(dropped(dropout_, input.values()), a_, invariant_);
  return ops::float_linear(low * lambda_d_, b_, invariant_) * lambda_b_;
}

Tensor VeraKind::dense() const { return lambda_b_.unsqueeze(1) * at::matmul(b_ * lambda_d_, a_); }

std::string VeraKind::describe() const { return fmt::format("VeRA r{}", a_.size(0)); }

void VeraKind::for_each_adapter_tensor(const std::string& module, const TensorVisitor& visit) {
  visit(module + ".vera_lambda_b", lambda_b_);
  visit(module + ".vera_lambda_d", lambda_d_);
}

WrappingKind::WrappingKind(std::vector<std::shared_ptr<LinearKind>> base, Tensor bias) : base_({}, base.at(0), std::move(bias)) {
  base_.replace(std::move(base));
}

void WrappingKind::for_each_tensor(const std::string& prefix, const TensorVisitor& visit) {
  base_.rename(prefix);
  base_.for_each_tensor(visit);
  for_each_adapter_tensor(prefix, visit);
}

void WrappingKind::set_execution(Execution execution) {
  AdapterKind::set_execution(execution);
  base_.set_execution(execution);
}

DoraKind::DoraKind(std::vector<std::shared_ptr<LinearKind>> base, Tensor a, Tensor b, Tensor magnitude, double scale, std::shared_ptr<AdapterDropout> dropout)
    : WrappingKind(std::move(base)), lora_(std::move(a), std::move(b), scale), magnitude_(std::move(magnitude)), dropout_(std::move(dropout)) {
  FRUGAL_ASSERT(lora_.out_features() == out_features() && lora_.in_features() == in_features() && is_float(magnitude_, {out_features()}));
}

Tensor DoraKind::factor() const {
  if (served_factor_.defined() && !at::GradMode::is_enabled()) return served_factor_;
  const auto norm = [&] {
    const at::NoGradGuard no_grad;
    return (base_.dense() + lora_.dense()).norm(2, {1});
  };
  return magnitude_ / norm();
}

// As the format's own implementation: with dropout, only what the adapter changes of the product is of the dropped input.
Tensor DoraKind::forward(const Activation& input) const {
  const Tensor factor = this->factor();
  if (!dropout_ || !dropout_->active()) return (base_.forward(input) + lora_.forward(input)) * factor;
  const Activation less(dropout_->apply(input.values()));
  return base_.forward(input) + (factor - 1) * base_.forward(less) + factor * lora_.forward(less);
}

Tensor DoraKind::dense() const { return (base_.dense() + lora_.dense()) * factor().unsqueeze(1); }

std::string DoraKind::describe() const { return fmt::format("DoRA r{} ({})", lora_.rank(), base_.describe()); }

void DoraKind::for_each_adapter_tensor(const std::string& module, const TensorVisitor& visit) {
  lora_.for_each_adapter_tensor(module, visit);
  visit(module + ".lora_magnitude_vector", magnitude_);
}

void DoraKind::set_execution(Execution execution) {
  served_factor_ = Tensor();
  if (execution == Execution::packed) served_factor_ = factor().detach();
  WrappingKind::set_execution(execution);
  lora_.set_execution(execution);
}

Ia3Kind::Ia3Kind(std::vector<std::shared_ptr<LinearKind>> base, Tensor l, Place place, Tensor bias)
    : WrappingKind(std::move(base), std::move(bias)), l_(std::move(l)), place_(place) {
  FRUGAL_ASSERT(place == Place::output ? is_float(l_, {out_features(), 1}) : is_float(l_, {1, in_features()}) && !holds_bias());
}

Tensor Ia3Kind::forward(const Activation& input) const {
  if (place_ == Place::input) return base_.forward(Activation(input.values() * l_.flatten()));
  return base_.forward(input) * l_.flatten();
}

Tensor Ia3Kind::dense() const { return base_.dense() * l_; }

Tensor Ia3Kind::merged_bias() const { return holds_bias() ? base_.bias() * l_.flatten() : Tensor(); }

std::string Ia3Kind::describe() const { return fmt::format("IA3 ({})", base_.describe()); }

void Ia3Kind::for_each_adapter_tensor(const std::string& module, const TensorVisitor& visit) { visit(module + ".ia3_l", l_); }

BottleneckKind::BottleneckKind(std::vector<std::shared_ptr<LinearKind>> base, Tensor down, Tensor up, Form form, std::shared_ptr<AdapterDropout> dropout,
                               Tensor bias)
    : WrappingKind(std::move(base), std::move(bias)), down_(std::move(down)), up_(std::move(up)), form_(form), dropout_(std::move(dropout)) {
  FRUGAL_ASSERT(is_float(down_, {down_.size(0), form.place == Place::output ? out_features() : in_features()}));
  FRUGAL_ASSERT(is_float(up_, {form.place == Place::input ? in_features() : out_features(), down_.size(0)}));
  FRUGAL_ASSERT(form.place == Place::output || !holds_bias());
}

namespace {

using Function = BottleneckKind::Function;

Tensor activated(const Tensor& x, Function function) {
  switch (function) {
    case Function::relu: return at::relu(x);
    case Function::tanh: return at::tanh(x);
    case Function::gelu: return at::gelu(x);
    case Function::silu: return at::silu(x);
  }
  return x;
}

// The same number by number: ATen computes the last few of a range in another way than the others, so that a row would depend on the batch.
void activate_each(Tensor& x, Function function) {
  const std::span<float> values(x.mutable_data_ptr<float>(), static_cast<size_t>(x.numel()));
  for (float& v : values) {
    switch (function) {
      case Function::relu: v = std::max(v, 0.0f); break;
      case Function::tanh: v = std::tanh(v); break;
      case Function::gelu: v = 0.5f * v * (1 + std::erf(v * static_cast<float>(std::numbers::sqrt2 / 2))); break;
      case Function::silu: v = v / (1 + std::exp(-v)); break;
    }
  }
}

}  // namespace

Tensor BottleneckKind::change(const Tensor& x) const {
  Tensor inner = ops::float_linear(dropped(dropout_, x), down_, invariant_);
  if (invariant_ && !ops::wants_gradient({inner}))
    activate_each(inner, form_.function);
  else
    inner = activated(inner, form_.function);
  return ops::float_linear(inner * form_.scale, up_, invariant_);
}

Tensor BottleneckKind::forward(const Activation& input) const {
  if (form_.place == Place::input) return base_.forward(Activation(input.values() + change(input.values())));
  const Tensor out = base_.forward(input);
  return out + change(form_.place == Place::output ? out : input.values());
}

Tensor BottleneckKind::dense() const { fail(ErrorKind::unsupported, "{}: has an activation inside, so it is no matrix", describe()); }

std::string BottleneckKind::describe() const { return fmt::format("bottleneck {} ({})", down_.size(0), base_.describe()); }

void BottleneckKind::for_each_adapter_tensor(const std::string& module, const TensorVisitor& visit) {
  visit(module + ".adapter_down.weight", down_);
  visit(module + ".adapter_up.weight", up_);
}

}  // namespace frugal::nn
