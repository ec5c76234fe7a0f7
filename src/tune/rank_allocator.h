// Which ranks of an AdaLoRA are worth their place (arXiv 2303.10512, section 3 and algorithm 1), number by number as peft's RankAllocator.
#pragma once

#include <string>
#include <vector>

#include "io/peft.h"
#include "nn/linear.h"
#include "train/step_hook.h"

namespace frugal::tune {

class RankAllocator : public train::StepHook {
 public:
  using Tensor = at::Tensor;
  struct Triplets {
    std::string module;
    Tensor a, b, e;  // [rank, in], [out, rank], [rank, 1]
  };
  // All of the same rank; tensors are the adapter's own.
  RankAllocator(std::vector<Triplets> modules, io::PeftConfig::RankBudget budget);

  // Throws Error{invalid_input} where tinit and tfinal leave no step to allot in.
  void begin(int64_t total_steps) override;
  Json add_gradients() override;  // of the penalty that keeps A and B orthogonal
  void after_step(int64_t step) override;
  void for_each_state(const std::function<void(const std::string& name, Tensor& state)>& visit) override;

  int64_t budget_at(int64_t step) const;
  // Schedule and, once ranks were allotted, which are kept.
  void describe(io::PeftConfig& config) const;

 private:
  struct Score {
    Tensor sensitivity, uncertainty;  // running means, of one of the tensors
  };
  struct Scores {
    Score a, b, e;
    Tensor kept;  // [rank] bool
  };
  void mask_to(int64_t budget);
  void mask_dropped();

  std::vector<Triplets> modules_;
  std::vector<Scores> scores_;
  io::PeftConfig::RankBudget budget_;
  Tensor allotted_;  // one number: whether `kept` means something
};

// What of an adapter's tensor is written: without the ranks that the configuration says are dropped, where they are still there.
at::Tensor kept_ranks(const io::PeftConfig& config, const std::string& name, const at::Tensor& tensor);

}  // namespace frugal::tune
