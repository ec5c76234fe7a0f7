#include "train/gradient_hooks.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <utility>

namespace frugal::train {
namespace {

class Hook : public torch::autograd::PostAccumulateGradHook {
 public:
  Hook(const std::function<void(size_t)>& is_there, size_t parameter) : is_there_(is_there), parameter_(parameter) {}
  void operator()(const at::Tensor&) override { is_there_(parameter_); }

 private:
  const std::function<void(size_t)>& is_there_;
  size_t parameter_;
};

}  // namespace

GradientHooks::GradientHooks(const std::vector<Parameter>& parameters, std::function<void(size_t)> is_there)
    : parameters_(parameters), is_there_(std::move(is_there)) {
  for (size_t i = 0; i < parameters.size(); ++i) torch::autograd::impl::set_post_acc_grad_hooks(parameters[i].tensor, std::make_unique<Hook>(is_there_, i));
}

GradientHooks::~GradientHooks() {
  for (const Parameter& parameter : parameters_) torch::autograd::impl::set_post_acc_grad_hooks(parameter.tensor, nullptr);
}

}  // namespace frugal::train
