#include "tune/adapter.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "base/error.h"
#include "nn/tensor_to_write.h"

namespace frugal::tune {
namespace {

// The float type that all of these hold, or none.
std::optional<at::ScalarType> float_type(const std::vector<std::shared_ptr<nn::LinearKind>>& kinds) {
  std::optional<at::ScalarType> type;
  for (const auto& kind : kinds) {
    const auto* dense = dynamic_cast<const nn::DenseKind*>(kind.get());
    if (!dense) return std::nullopt;
    type = dense->weight().scalar_type();
  }
  return type;
}

Tensor rounded(const Tensor& weight, at::ScalarType type, const std::string& name) {
  Tensor result = weight.to(type).contiguous();
  if (!result.isfinite().all().item<bool>())
    fail(ErrorKind::invalid_input, "{}: with the adapter in it the weight holds numbers beyond what {} holds", name, c10::toString(type));
  return result;
}

// QA-LoRA's change is one number for all weights of a group, and that is what a zero point is (arXiv 2309.14717, section 3.3). Where it cannot be one:
// null. Zero points are float32 then: in less, rounding would be as large as what was learned.
std::shared_ptr<nn::LinearKind> with_zeros_moved(const AdapterSite& site) {
  const auto* lora = dynamic_cast<const nn::LoraKind*>(site.kind.get());
  const auto* grouped = site.before.size() == 1 ? dynamic_cast<const nn::GroupedKind*>(site.before.front().get()) : nullptr;
  if (!lora || lora->group() == 1 || !grouped) return nullptr;
  auto weight = std::make_shared<formats::GroupedWeight>(*grouped->weight());
  if (!weight->group_index.empty() || lora->group() % weight->group_size != 0) return nullptr;
  const Tensor change = lora->by_group().contiguous();
  const int64_t groups = weight->groups(), each = lora->group() / weight->group_size;
  std::vector<float> zeros(static_cast<size_t>(weight->rows * groups));
  for (int64_t row = 0; row < weight->rows; ++row) {
    for (int64_t group = 0; group < groups; ++group) {
      const auto index = static_cast<size_t>(row * groups + group);
      const float scale = weight->scales[index], moved = change.const_data_ptr<float>()[row * change.size(1) + group / each];
      if (scale == 0) return nullptr;  // all its weights are zero whatever the zero point
      zeros[index] = weight->zero_of(row, group) - moved / scale;
    }
  }
  weight->zeros = std::move(zeros);
  weight->symmetric = false;
  weight->float_zeros = true;
  weight->scale_format = "F32";
  formats::validate(*weight, site.linear->name());
  return std::make_shared<nn::GroupedKind>(std::move(weight));
}

}  // namespace

Adapter::Adapter(nn::Model& model, io::PeftConfig config, std::vector<AdapterSite> sites, std::shared_ptr<nn::AdapterDropout> dropout,
                 std::vector<std::pair<std::string, Tensor>> shared)
    : model_(&model), config_(std::move(config)), sites_(std::move(sites)), dropout_(std::move(dropout)), shared_(std::move(shared)) {}

Adapter::Adapter(nn::Model& model, io::PeftConfig config, std::unique_ptr<SoftPrompt> prompt)
    : model_(&model), config_(std::move(config)), prompt_(std::move(prompt)) {
  prompt_->put(model);
}

void Adapter::allot_ranks() {
  FRUGAL_ASSERT(config_.type == io::PeftType::adalora);
  std::vector<RankAllocator::Triplets> triplets;
  for (const AdapterSite& site : sites_) {
    RankAllocator::Triplets& one = triplets.emplace_back(site.linear->name());
    site.kind->for_each_adapter_tensor({}, [&](const std::string& part, Tensor& tensor) {
      (part == ".lora_A" ? one.a : part == ".lora_B" ? one.b : one.e) = tensor;
    });
  }
  allocator_ = std::make_unique<RankAllocator>(std::move(triplets), config_.budget);
}

void Adapter::for_each_tensor(const nn::TensorVisitor& visit) {
  if (prompt_) {
    Tensor embeddings = prompt_->embeddings();
    visit(io::kPromptEmbeddings, embeddings);
  }
  if (config_.save_projection) {
    for (auto& [name, tensor] : shared_) visit(name, tensor);
  }
  for (const AdapterSite& site : sites_) site.kind->for_each_adapter_tensor(site.linear->name(), visit);
}

std::vector<train::Parameter> Adapter::parameters() {
  if (prompt_) return prompt_->parameters();
  std::vector<train::Parameter> result;
  for_each_tensor([&](const std::string& name, Tensor& tensor) {
    if (!tensor.requires_grad()) return;
    // Matrices end so; the others are factors, not drawn to zero.
    result.push_back(
        {name, tensor, name.ends_with(".lora_B.weight") ? b_rate_ : 1, name.ends_with(".weight") || name.ends_with(".lora_A") || name.ends_with(".lora_B")});
  });
  return result;
}

uint64_t Adapter::trainable_parameters() {
  uint64_t count = 0;
  for (const train::Parameter& parameter : parameters()) count += static_cast<uint64_t>(parameter.tensor.numel());
  return count;
}

void Adapter::set_training(bool training) {
  if (dropout_) dropout_->set_training(training);
}

void Adapter::seed(uint64_t seed) {
  if (dropout_) dropout_->seed(seed);
}
Tensor Adapter::generator_state() const { return dropout_ ? dropout_->state() : Tensor(); }

void Adapter::set_generator_state(const Tensor& state) {
  if (dropout_) dropout_->set_state(state);
}

void Adapter::save(const std::string& path, const std::string& base_model, bool overwrite) {
  io::PeftConfig config = config_;
  if (allocator_) allocator_->describe(config);
  std::vector<io::TensorToWrite> tensors;
  for_each_tensor([&](const std::string& name, Tensor& tensor) { tensors.push_back(nn::tensor_to_write(name, kept_ranks(config, name, tensor))); });
  if (config.base_model.empty()) config.base_model = base_model;
  io::write_peft(path, config, std::move(tensors), overwrite);
}

void Adapter::require_outermost() const {
  for (const AdapterSite& site : sites_) {
    if (site.linear->kinds().back() != site.kind)
      fail(ErrorKind::internal, "{}: another adapter was attached after this one and must go first", site.linear->name());
  }
}

void Adapter::detach() {
  if (prompt_) SoftPrompt::take_out(*model_);
  prompt_.reset();
  require_outermost();
  for (const AdapterSite& site : sites_) {
    site.linear->replace(site.before);
    site.linear->mutable_bias() = site.bias_before;
  }
  sites_.clear();
}

void Adapter::merge(std::optional<at::ScalarType> encoded) {
  const at::NoGradGuard no_grad;
  if (prompt_)
    fail(ErrorKind::unsupported, "{} stands before the text and is no matrix: it cannot be merged, and is used beside the model (--lora)",
         io::to_string(config_.type));
  require_outermost();
  std::vector<at::ScalarType> types;
  std::vector<std::shared_ptr<nn::LinearKind>> merged;
  for (const AdapterSite& site : sites_) {
    merged.push_back(with_zeros_moved(site));
    if (!site.kind->linear()) fail(ErrorKind::unsupported, "{}: {} is no matrix and cannot be merged", site.linear->name(), site.kind->describe());
    const std::optional<at::ScalarType> type = float_type(site.before);
    if (!type && !encoded && !merged.back()) {
      fail(ErrorKind::unsupported, "{}: a weight of kind {} cannot take the adapter in, only plain floats can", site.linear->name(),
           site.before.front()->describe());
    }
    types.push_back(type.value_or(encoded.value_or(at::kFloat)));
  }
  for (size_t i = 0; i < sites_.size(); ++i) {
    if (!merged[i]) merged[i] = std::make_shared<nn::DenseKind>(rounded(sites_[i].linear->dense(), types[i], sites_[i].linear->name()));
  }
  for (size_t i = 0; i < sites_.size(); ++i) {
    const AdapterSite& site = sites_[i];
    site.linear->replace(std::move(merged[i]));
    const auto* wrapping = dynamic_cast<const nn::WrappingKind*>(site.kind.get());
    if (wrapping && wrapping->holds_bias()) site.linear->mutable_bias() = wrapping->merged_bias();
    if (site.linear == &model_->head) model_->spec.tied_embeddings = false;
  }
  sites_.clear();
}

}  // namespace frugal::tune
