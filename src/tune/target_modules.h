// Which Linears of a model a configuration of peft means, and with which rank and scale, by peft's rules.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/peft.h"
#include "nn/model.h"
#include "text/pattern.h"

namespace frugal::tune {

class TargetModules {
 public:
  // `source` leads messages. Throws Error{corrupt_file, unsupported} for a regular expression that is broken or may run away.
  TargetModules(const io::PeftConfig& config, const std::string& source);

  // In the order of the model. Throws Error{invalid_input} when there is none.
  std::vector<nn::Linear*> find(nn::Model& model) const;
  // The names of target_modules that are none of the model's; empty for a regular expression.
  std::vector<std::string> unknown(nn::Model& model) const;

  bool scales_input(std::string_view name) const;  // IA3
  double scale(std::string_view name) const;       // LoRA: alpha / rank, alpha / sqrt(rank)
  int64_t rank(std::string_view name) const;

 private:
  struct Selection {
    Selection(const io::ModuleSelection& selection, const std::string& source);
    bool holds(std::string_view name) const;
    std::set<std::string, std::less<>> names;
    std::unique_ptr<text::Pattern> regex;
    bool all_linear;
  };
  bool selects(std::string_view name) const;
  bool in_chosen_layer(std::string_view name) const;

  std::string source_;
  Selection target_, exclude_, feedforward_;
  std::set<int64_t> layers_;
  std::vector<std::string> layers_pattern_;
  int64_t rank_;
  double alpha_;
  bool rslora_;
  std::vector<std::pair<text::Pattern, int64_t>> ranks_;
  std::vector<std::pair<text::Pattern, double>> alphas_;
};

// All Linears that an adapter can be at: those of the blocks and the head, a tied one too.
std::vector<nn::Linear*> all_linears(nn::Model& model);

}  // namespace frugal::tune
