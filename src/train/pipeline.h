// Pipeline parallelism: the blocks of a model are shared out to stages, through which a step's micro-batches go one behind the other, in the order 1F1B
// (PipeDream-Flush; Narayanan et al., 2021, arXiv 2104.04473, 2.2.1): a stage first computes as many forward passes as stages follow it, then a backward pass
// after each forward pass, then the rest. It so holds what backward needs of at most as many micro-batches as stages follow, and itself. Gradients are those
// of one process: nothing moves before all micro-batches are through. Of p stages and m micro-batches a share (p - 1) / (m + p - 1) of the time is a
// bubble (2.2.1 has it as (p - 1) / m of the rest), if stages take equally long.
//
// Where it differs: blocks are shared as evenly as they go, where Megatron-LM wants them to divide; interleaved stages (2.2.2) are left out.
#pragma once

#include <vector>

#include "train/language_modeling.h"
#include "train/model_parallel.h"

namespace frugal::train {

struct PipelinePass {
  bool is_forward = true;
  size_t micro_batch = 0;
  bool operator==(const PipelinePass&) const = default;
};

// What a stage does in a step, in order.
std::vector<PipelinePass> one_forward_one_backward(int stage, int stages, size_t micro_batches);

// (p - 1) / (m + p - 1).
double bubble_fraction(int stages, int64_t micro_batches);

// Next-token prediction by the stage of a pipeline that this rank is. All stages call the same.
class PipelinedLanguageModeling : public LanguageModeling {
 public:
  // Referred to as LanguageModeling says; model is the rank's own.
  PipelinedLanguageModeling(const nn::Model& model, const ModelParallel& stages, const data::Dataset& dataset, const data::Dataset* held_out,
                            LanguageModelingOptions options);
  double accumulate(const MicroBatch& batch, double scale, uint64_t seed) override;
  double accumulate_step(std::span<const MicroBatch* const> batches, double scale, std::span<const uint64_t> seeds) override;
  double loss(const MicroBatch& batch, uint64_t seed) override;
  void accumulate_drawn(const MicroBatch& batch, double scale, uint64_t seed) override;
  std::optional<double> evaluate() override;
  // "pipeline/bubble": the share of the stages' time since the last call in which they waited for each other.
  Json metrics() override;

 private:
  struct Flight;
  Flight forward(const data::Dataset& dataset, const MicroBatch& batch, double scale);
  void backward(Flight& flight);
  at::Tensor receive(at::IntArrayRef shape, int from);
  void send(const at::Tensor& tensor, int to);
  void finish_sends();

  const ModelParallel& stages_;
  std::vector<std::unique_ptr<dist::Pending>> sends_;
  double waited_ = 0;                      // for other stages, in the step
  double idle_seconds_ = 0, seconds_ = 0;  // of all stages, since metrics()
};

}  // namespace frugal::train
