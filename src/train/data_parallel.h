// One step by several ranks: each computes some of its micro-batches. The model and the numbers are those of one process but for the order of sums;
// what differs is who holds what.
//
//   ddp    arXiv 2006.15704  all hold parameters, gradients and optimizer state; gradients are summed everywhere
//   zero1  arXiv 1910.02054  the optimizer's state of a parameter is at the rank that owns it, which moves it and gives it to the others
//   zero2                    and its gradient, which leaves the others with each micro-batch
//   zero3                    and the parameter itself: the others have a block's while it is computed, all else (embedding, head) during a
//                            micro-batch. Blocks are recomputed (train/hidden_states.h), so each is sent twice a micro-batch
//
// Where it differs from DeepSpeed: what is owned is whole tensors, so every optimizer works on shards, with matrices as it needs them; a rank's share
// is then as even as the tensors allow.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "dist/process_group.h"
#include "train/gradient_reducer.h"
#include "train/model_parallel.h"
#include "train/optimizer.h"
#include "train/parameter.h"

namespace frugal::train {

enum class Strategy { ddp, zero1, zero2, zero3 };

// "model.layers.7.mlp.up_proj.weight" is of block 7; DataParallel::kOutside where a name is of none.
int64_t block_of(const std::string& name);

// The tensor keeps its shape and its place in the graph; its numbers are there or not.
void set_here(const at::Tensor& tensor, bool here);

// The rank that owns each parameter: runs of parameters with about equally many numbers.
std::vector<int> owners_of(const std::vector<Parameter>& parameters, int ranks);

class DataParallel {
 public:
  // All are referred to. All parameters take rank 0's values. model: where the ranks of `group` have a part of it each, the same one; else null.
  DataParallel(dist::ProcessGroup& group, Strategy strategy, const std::vector<Parameter>& parameters, ModelParallel* model = nullptr);

  dist::ProcessGroup& group() const { return group_; }  // that the micro-batches are dealt out to
  dist::ProcessGroup& world() const { return model_ ? model_->world() : group_; }
  bool leads() const { return world().leads(); }
  bool shards() const { return strategy_ != Strategy::ddp; }
  bool is_whole() const { return !shards() && !model_; }  // each rank has all that a checkpoint needs
  // Micro-batches of a step go through the ranks' stages one behind the other (pipeline.h).
  bool is_staged() const { return model_ && model_->is_staged(); }
  // All ranks must compute a micro-batch in each round, and evaluate: weights are sent as blocks are computed.
  bool shards_parameters() const { return strategy_ == Strategy::zero3; }
  // What this rank's optimizer moves.
  std::vector<Parameter> owned() const;

  // A step's micro-batches are dealt out in rounds of one for each rank. Around each round; `last` of the step.
  void begin_round(bool last);
  void end_round();
  // After the last round: gradients are in .grad, where their owners are.
  void put_gradients();
  // Of all gradients of the step.
  double gradient_norm() const;
  // What rank 0 has in leaders_parameters() is then where it belongs.
  void take_leaders_parameters() const;
  // zero3: the parameters of a block, or with kOutside those of none, come, and those of others go.
  static constexpr int64_t kOutside = -1;
  void come(int64_t block);
  void go(int64_t block);
  // All parameters of the model at rank 0, until they go again. Nothing where they are there.
  void come_to_leader();
  void go_from_leader();
  const std::vector<Parameter>& leaders_parameters() const { return model_ ? model_->whole() : parameters_; }
  // After the optimizer has moved what is owned: all ranks have all parameters.
  void share_parameters() const;

  // Rank 0 gets the state of all ranks' optimizers, the others nothing.
  std::map<std::string, at::Tensor> gather_state(Optimizer& optimizer) const;
  // The other way round: `state` is rank 0's. Throws Error{invalid_input} as load_state does.
  void load_state(Optimizer& optimizer, const std::map<std::string, at::Tensor>& state, const std::string& where) const;
  bool all_agree(bool here) const;
  // What rank 0 gives, on all ranks.
  Json of_leader(const Json& value) const;

 private:
  void broadcast_each(const std::function<int(size_t)>& root) const;

  dist::ProcessGroup& group_;
  Strategy strategy_;
  const std::vector<Parameter>& parameters_;
  std::vector<int> owners_;                         // empty: ddp
  std::map<int64_t, std::vector<size_t>> members_;  // zero3: of each block
  ModelParallel* model_;
  GradientReducer reducer_;
  bool reduces_ = false;
};

}  // namespace frugal::train
