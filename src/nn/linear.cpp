#include "nn/linear.h"

#include <ATen/ATen.h>

#include <vector>

#include "base/error.h"
#include "ops/packed_linear.h"

namespace frugal::nn {

using formats::ActivationQuant;

struct Activation::Forms {
  std::vector<std::pair<ActivationQuant, std::unique_ptr<ops::QuantizedActivations>>> made;
};

Activation::Activation(Tensor values) : values_(std::move(values)) {}
Activation::~Activation() = default;

const ops::QuantizedActivations& Activation::quantized(const ActivationQuant& quant) const {
  if (!forms_) forms_ = std::make_unique<Forms>();
  for (const auto& [key, form] : forms_->made) {
    if (key == quant) return *form;
  }
  forms_->made.emplace_back(quant, ops::quantize_activations(values_, quant));
  return *forms_->made.back().second;
}

Tensor LinearKind::rows(const Tensor& ids) const { return dense().index_select(0, ids); }

void LinearKind::for_each_tensor(const std::string&, const TensorVisitor&) {}

Linear::Linear(std::string name, std::shared_ptr<LinearKind> kind, Tensor bias) : name_(std::move(name)), bias_(std::move(bias)) {
  FRUGAL_ASSERT(kind && (!bias_.defined() || bias_.size(0) == kind->out_features()));
  kinds_.push_back(std::move(kind));
}

Tensor Linear::forward(const Activation& input) const {
  Tensor out = kinds_.front()->forward(input);
  for (size_t i = 1; i < kinds_.size(); ++i) out = out + kinds_[i]->forward(input);
  return bias_.defined() ? out + bias_ : out;
}

Tensor Linear::dense() const {
  Tensor sum = kinds_.front()->dense();
  for (size_t i = 1; i < kinds_.size(); ++i) sum = sum + kinds_[i]->dense();
  return sum;
}

void Linear::replace(std::vector<std::shared_ptr<LinearKind>> kinds, bool reshape) {
  FRUGAL_ASSERT(!kinds.empty());
  for (const auto& kind : kinds) {
    FRUGAL_ASSERT(kind->out_features() == kinds.front()->out_features() && kind->in_features() == kinds.front()->in_features());
  }
  FRUGAL_ASSERT(reshape || kinds_.empty() || (kinds.front()->out_features() == out_features() && kinds.front()->in_features() == in_features()));
  kinds_ = std::move(kinds);
}

void Linear::set_execution(Execution execution) {
  for (const auto& kind : kinds_) kind->set_execution(execution);
}

uint64_t Linear::resident_bytes() const {
  uint64_t bytes = 0;
  for (const auto& kind : kinds_) bytes += kind->resident_bytes();
  return bytes;
}

uint64_t Linear::storage_bytes() const {
  uint64_t bytes = bias_.defined() ? static_cast<uint64_t>(bias_.nbytes()) : 0;
  for (const auto& kind : kinds_) bytes += kind->storage_bytes();
  return bytes;
}

std::string Linear::describe() const {
  std::string text;
  for (const auto& kind : kinds_) text += (text.empty() ? "" : " + ") + kind->describe();
  return text;
}

void Linear::for_each_tensor(const TensorVisitor& visit) {
  for (size_t i = 0; i < kinds_.size(); ++i) {
    kinds_[i]->for_each_tensor(kinds_.size() == 1 ? name_ : fmt::format("{}.kind{}", name_, i), visit);
  }
  if (bias_.defined()) visit(name_ + ".bias", bias_);
}

}  // namespace frugal::nn
