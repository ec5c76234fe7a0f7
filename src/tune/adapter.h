// What is attached to a model to be trained in place of its weights, or was trained so: the kinds that it has put into the model's Linears.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/method_table.h"
#include "io/peft.h"
#include "nn/lora_kind.h"
#include "nn/model.h"
#include "train/parameter.h"
#include "tune/rank_allocator.h"
#include "tune/soft_prompt.h"

namespace frugal::text {
class Tokenizer;
}  // namespace frugal::text

namespace frugal::tune {

using nn::Tensor;

// A Linear as it was and what stands there now.
struct AdapterSite {
  nn::Linear* linear = nullptr;
  std::vector<std::shared_ptr<nn::LinearKind>> before;
  Tensor bias_before;
  std::shared_ptr<nn::AdapterKind> kind;
};

// Points into the model, which must outlive it and keep its blocks; without it the model goes on as it is. Adapters are detached and merged
// in the reverse of the order in which they were attached.
class Adapter {
 public:
  // Made by the rows of adapter_table() and by load_adapter(). dropout may be null; shared: tensors of the whole adapter, not trained.
  Adapter(nn::Model& model, io::PeftConfig config, std::vector<AdapterSite> sites, std::shared_ptr<nn::AdapterDropout> dropout,
          std::vector<std::pair<std::string, Tensor>> shared = {});
  Adapter(nn::Model& model, io::PeftConfig config, std::unique_ptr<SoftPrompt> prompt);

  const io::PeftConfig& config() const { return config_; }
  // What an optimizer moves, by the names that the file has.
  std::vector<train::Parameter> parameters();
  void for_each_tensor(const nn::TensorVisitor& visit);            // all that save() writes
  uint64_t trainable_parameters();                                 // numbers in parameters()
  void set_learning_rate_ratio(double ratio) { b_rate_ = ratio; }  // of B to A (LoRA+)

  // What a training run calls at each step, or null.
  train::StepHook* step_hook() { return allocator_.get(); }
  void allot_ranks();  // AdaLoRA: from now on step_hook() does, as the configuration's budget says

  // Dropout is on while training only. Its state belongs to a checkpoint of the run; undefined without dropout.
  void set_training(bool training);
  void seed(uint64_t seed);  // what dropout draws from here on
  Tensor generator_state() const;
  void set_generator_state(const Tensor& state);

  // A directory that peft reads. base_model: what the adapter is for, by path or name, unless its configuration says so.
  void save(const std::string& path, const std::string& base_model = {}, bool overwrite = false);

  // The Linears as they were before, to the bit.
  void detach();
  // The Linears as plain matrices with the adapter in them (Error{unsupported} where it is none), in the float type that they had; an encoded weight (quantized, sparse, low-rank)
  // becomes `encoded` (but grouped integers that a QA-LoRA fits stay so, with other zero points), or Error{unsupported} without one, before anything has changed. Then Model::set_execution is to be called.
  void merge(std::optional<at::ScalarType> encoded = at::kHalf);

 private:
  void require_outermost() const;
  nn::Model* model_;
  io::PeftConfig config_;
  std::vector<AdapterSite> sites_;
  std::shared_ptr<nn::AdapterDropout> dropout_;
  std::vector<std::pair<std::string, Tensor>> shared_;
  std::unique_ptr<SoftPrompt> prompt_;  // then there are no sites
  std::unique_ptr<RankAllocator> allocator_;
  double b_rate_ = 1;
};

struct AttachContext {
  uint64_t seed = 0;                           // the same one draws the same adapter
  const text::Tokenizer* tokenizer = nullptr;  // of the model; null: what needs one is Error{invalid_input}
  // Writes the model as it is now and says where: of a method that changes the weights first, and whose adapter is for those. Empty: they are kept in
  // memory only.
  std::function<std::string()> save_base;
};

// Attaches a new adapter that does not change the model's output yet (but a soft prompt, which cannot but do). After it, Model::set_execution is
// to be called, so that the adapter computes as the rest does.
using AttachFunction = std::unique_ptr<Adapter> (*)(nn::Model& model, const Options& options, const AttachContext& context);
using AdapterRow = MethodRow<AttachFunction>;
const MethodTable<AttachFunction>& adapter_table();

// A directory of peft, for inference or to be trained on (`seed` is of its dropout). scale: times the adapter's own; another than 1 for LoRA
// only. Throws Error, before anything is attached, for a file that does not fit the model. Model::set_execution as above.
std::unique_ptr<Adapter> load_adapter(nn::Model& model, const std::string& path, double scale = 1, uint64_t seed = 0);

}  // namespace frugal::tune
