// A matrix of a Linear while it is trained in another form than it will be stored in: fake-quantized, masked, a frozen one with a low-rank change.
#pragma once

#include <functional>

#include "nn/linear.h"

namespace frugal::train {

// `value`, exactly, with the gradient of `of`: what is rounded is seen as the identity by backward (arXiv 1308.3432).
at::Tensor straight_through(const at::Tensor& value, const at::Tensor& of);

class TrainedKind : public nn::LinearKind {
 public:
  // Differentiable, and computed anew at each use.
  struct Form {
    std::function<at::Tensor()> weight;                   // float32 [out_features, in_features]
    std::function<at::Tensor(const at::Tensor&)> input;   // of what the matrix multiplies, [tokens, in_features]; empty: as it is
    std::function<at::Tensor(const at::Tensor&)> output;  // of the product, [tokens, out_features]; empty: as it is
  };
  TrainedKind(int64_t out_features, int64_t in_features, Form form) : out_features_(out_features), in_features_(in_features), form_(std::move(form)) {}
  int64_t out_features() const override { return out_features_; }
  int64_t in_features() const override { return in_features_; }
  at::Tensor forward(const nn::Activation& input) const override;
  at::Tensor dense() const override;
  std::string describe() const override { return "in training"; }
  uint64_t storage_bytes() const override { return static_cast<uint64_t>(out_features_ * in_features_) * sizeof(float); }
  void set_execution(nn::Execution) override {}

 private:
  int64_t out_features_, in_features_;
  Form form_;
};

}  // namespace frugal::train
