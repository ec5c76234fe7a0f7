// How an adapter comes to be at the Linears that its configuration means: one way for new ones and for those of a file, which differ in
// where the tensors come from.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tune/adapter.h"

namespace frugal::tune {

class AdapterTensors {
 public:
  virtual ~AdapterTensors() = default;
  // float32, contiguous. part: ".lora_A.weight", ...
  virtual Tensor take(const nn::Linear& linear, std::string_view part, at::IntArrayRef shape) = 0;
  // Of the whole adapter: "vera_A", "vera_B".
  virtual Tensor take_shared(std::string_view name, at::IntArrayRef shape) = 0;
  virtual void finish() {}  // when all is taken, before anything is attached
};

struct AttachOptions {
  std::string source;     // leads messages
  double scale = 1;       // times LoRA's own
  bool freeze_a = false;  // LoRA-FA
  uint64_t dropout_seed = 0;
};
std::unique_ptr<Adapter> attach(nn::Model& model, const io::PeftConfig& config, AdapterTensors& tensors, const AttachOptions& options);

// Throws Error{invalid_input} with the nearest name for a target that names no module of the model.
void require_known_targets(nn::Model& model, const io::PeftConfig& config, const std::string& method);

// New tensors as peft draws them: A uniform in +-1/sqrt(in), B zero, magnitudes those of the rows, IA3 ones.
std::unique_ptr<Adapter> attach_new(nn::Model& model, const io::PeftConfig& config, const std::string& method, uint64_t seed, bool freeze_a = false);

// Options that the LoRA rows share: r, alpha, dropout, target, rslora; and what they mean.
std::vector<OptionSpec> lora_options();
io::PeftConfig lora_config(const Options& options);
OptionSpec target_option(std::string fallback);
io::ModuleSelection target_of(const std::string& text);

}  // namespace frugal::tune
