#include "train/full_parameters.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "nn/sharing.h"

namespace frugal::train {
namespace {

using at::Tensor;

// Numbers that nobody else holds.
std::shared_ptr<nn::LinearKind> own_matrix(const Tensor& dense) {
  const at::NoGradGuard no_grad;
  return std::make_shared<nn::DenseKind>(dense.to(at::kFloat).clone(at::MemoryFormat::Contiguous));
}

}  // namespace

std::vector<Parameter> all_parameters(nn::Model& model) {
  model.embedding = own_matrix(model.embedding->dense());
  if (model.spec.tied_embeddings) model.head.replace(model.embedding);
  model.for_each_linear([](nn::Linear& linear) { linear.replace(own_matrix(linear.dense())); });
  std::vector<Parameter> parameters;
  model.for_each_tensor([&](const std::string& name, Tensor& tensor) {
    if (tensor.dim() < 2) tensor = tensor.detach().to(at::kFloat).clone();
    tensor.requires_grad_();
    parameters.push_back({name, tensor, 1, tensor.dim() >= 2});
  });
  nn::share_weights(model);
  return parameters;
}

}  // namespace frugal::train
