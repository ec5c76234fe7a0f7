// Adapters as the Python package peft keeps them: a directory with adapter_config.json and adapter_model.safetensors, whose tensors are
// named "base_model.model.<module>.<part>". BOTTLENECK is that of the fork of peft in LLM-Adapters (arXiv 2304.01933). Reader of untrusted bytes; which modules a configuration means is tune/'s to find.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/metadata.h"
#include "io/tensor_to_write.h"

namespace frugal::io {

enum class PeftType { lora, ia3, vera, bottleneck, adalora, prompt_tuning, prefix_tuning };
std::string_view to_string(PeftType type);  // "LORA", ...
// What stands before the text in place of beside the weights: the file has one tensor, kPromptEmbeddings, and means no modules.
inline bool is_soft_prompt(PeftType type) { return type == PeftType::prompt_tuning || type == PeftType::prefix_tuning; }
inline constexpr const char* kPromptEmbeddings = "prompt_embeddings";

// Modules: names, or their ends after a dot; or a regular expression that matches whole names; or all linear layers but the head.
struct ModuleSelection {
  std::vector<std::string> names;
  std::string regex;
  bool all_linear = false;
  bool empty() const { return names.empty() && regex.empty() && !all_linear; }
};

struct PeftConfig {
  PeftType type = PeftType::lora;
  std::string base_model;  // base_model_name_or_path
  ModuleSelection target_modules, exclude_modules;
  std::vector<int64_t> layers_to_transform;  // empty: all
  std::vector<std::string> layers_pattern;   // what is before a layer's number; empty: anything
  int64_t rank = 8;                          // LoRA, VeRA; the width of a bottleneck
  double alpha = 8, dropout = 0;
  bool rslora = false, dora = false;
  // By regular expression over the end of a module's name; the first that matches counts.
  std::vector<std::pair<std::string, int64_t>> rank_pattern;
  std::vector<std::pair<std::string, double>> alpha_pattern;
  ModuleSelection feedforward_modules;  // IA3: those whose input is scaled
  bool parallel = false;                // bottleneck: beside the module
  double scaling = 1;
  std::string activation = "tanh";                         // one of kBottleneckActivations
  uint64_t projection_key = 0;                             // VeRA: what the shared matrices are drawn from
  bool save_projection = true;                             // VeRA: they are in the file
  int64_t qalora_group_size = 0;                           // QA-LoRA: inputs that are pooled; 0: LoRA
  int64_t virtual_tokens = 0;                              // soft prompts
  int64_t token_dim = 0, layers = 0, attention_heads = 0;  // soft prompts, of the model; written only
  // AdaLoRA; its rank is init_r. How it was learned, and which ranks are left, by "<module>.lora_E"; none there: all are.
  struct RankBudget {
    int64_t target_r = 8, tinit = 0, tfinal = 0, delta_t = 1, total_step = 0;
    double beta1 = 0.85, beta2 = 0.85, orth_reg_weight = 0.5;
  };
  RankBudget budget;
  std::vector<std::pair<std::string, std::vector<bool>>> kept_ranks;
};

struct PeftAdapter {
  std::string path;  // the directory
  PeftConfig config;
  std::map<std::string, TensorView, std::less<>> tensors;  // by their names without "base_model." and "model."
  std::shared_ptr<MappedFile> file;                        // owns the bytes
};

inline constexpr int64_t kMaxAdapterRank = int64_t{1} << 16, kMaxVirtualTokens = int64_t{1} << 16;
inline constexpr const char* kBottleneckActivations[] = {"relu", "tanh", "gelu", "silu"};

// Throws Error{corrupt_file} for what breaks the format, Error{unsupported} that names a peft_type or a field that means something we
// cannot do. Fields that cannot change a number are skipped. `path` leads the messages.
PeftConfig parse_peft_config(const Json& json, const std::string& path);
Json to_json(const PeftConfig& config);

// Throws Error{io, invalid_input, corrupt_file, unsupported}; a pickle is never opened.
PeftAdapter read_peft(const std::string& directory);
// tensors: named as in PeftAdapter. Atomic.
void write_peft(const std::string& directory, const PeftConfig& config, std::vector<TensorToWrite> tensors, bool overwrite);

}  // namespace frugal::io
