// Adaptive off-policy learning (DistiLLM, arXiv 2402.03898, section 3.2, algorithm 1): how much of what a student learns from it has written itself, and
// which of that it wrote before. All of it is state of a run: in checkpoints, and changed at the ends of steps only.
#pragma once

#include <cstdint>
#include <vector>

#include "base/rng.h"
#include "train/step_hook.h"

namespace frugal::distill {

struct WrittenRow {
  std::vector<int32_t> tokens;
  size_t prompt = 0;  // so many of them are asked, the rest the student answered
};

enum class RowSource { data, student, buffer };

// Of `longest` tokens a row, of at most `capacity` rows: the newest ones.
class AdaptiveReplay : public train::StepHook {
 public:
  AdaptiveReplay(int64_t capacity, int64_t longest, double threshold, double loss_eps);

  // chance in [0, 1): below the threshold the rows are the student's; those it writes now while the buffer is not full, and later in a share of
  // them that falls to 0 with the steps.
  RowSource source(double chance) const;
  double threshold() const;
  // Different ones, at most as many as there are.
  std::vector<WrittenRow> draw(size_t count, Rng& rng) const;
  // Into the buffer as the step ends; those without an answer are left out.
  void add(const std::vector<WrittenRow>& rows);

  // The held-out loss that a rise is counted from: of the untrained student, then of the last rise.
  bool knows_loss() const;
  void set_loss(double loss);

  void begin(int64_t total_steps) override { total_steps_ = total_steps; }
  Json add_gradients() override;
  void after_step(int64_t step) override;
  void evaluated(double loss) override;
  void for_each_state(const std::function<void(const std::string& name, at::Tensor& state)>& visit) override;

 private:
  int64_t size() const;

  int64_t capacity_, total_steps_ = 1;
  double loss_eps_;
  at::Tensor tokens_;    // [capacity, longest] int32
  at::Tensor lengths_;   // [capacity, 2] int64: of the row, of its prompt
  at::Tensor counts_;    // [2] int64: rows that were ever put in, steps that were done
  at::Tensor progress_;  // [2] float64: threshold, held-out loss (negative: not known)
  std::vector<WrittenRow> fresh_;
};

}  // namespace frugal::distill
