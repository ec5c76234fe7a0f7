// One model, several ranks that each hold a part of it: some of the blocks (pipeline.h), and of those a part of each matrix (tensor_parallel.h). What of
// it a rank has, and how rank 0 gets the whole for checkpoints, which so do not depend on the number of ranks.
//
// Ranks are numbered as Megatron-LM does (arXiv 2104.04473, 3): those that share matrices are neighbours, then come copies of the model, then stages.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "dist/process_group.h"
#include "nn/model.h"
#include "train/parameter.h"
#include "train/tensor_parallel.h"

namespace frugal::train {

// How many ranks share one model; the others have copies of it (data_parallel.h).
struct ModelParallelSize {
  int tensor = 1, pipeline = 1;
  int ranks() const { return tensor * pipeline; }
};

// The stages that have a parameter: one, or of a tied embedding the first and the last.
std::vector<int> stages_of(const std::string& name, const nn::ModelSpec& spec, int stages);

class ModelParallel {
 public:
  // Throws what says why `spec` cannot be shared so by `ranks`: Error{invalid_input}, Error{unsupported}.
  static void check(const nn::ModelSpec& spec, ModelParallelSize size, int ranks);

  // All ranks of `world` call it, after check(); model and world are referred to. `parameters`, all of the model's (full_parameters.h), become those that
  // this rank has.
  ModelParallel(dist::ProcessGroup& world, ModelParallelSize size, nn::Model& model, std::vector<Parameter>& parameters);

  dist::ProcessGroup& world() const { return world_; }
  dist::ProcessGroup& data() const { return *data_; }        // those that have the same part
  dist::ProcessGroup& replica() const { return *replica_; }  // those that together have the model once
  dist::ProcessGroup& stages() const { return *stages_; }    // those of the replica that have the same part of other blocks: a rank is a stage
  int stage() const { return stages_->rank(); }
  Range blocks() const { return blocks_; }  // of this stage
  bool embeds() const { return stage() == 0; }
  bool has_head() const { return stage() == size_.pipeline - 1; }
  bool is_staged() const { return size_.pipeline > 1; }
  nn::InputTap input_tap() const { return size_.tensor > 1 ? sums_of_input_gradients(*tensor_) : nn::InputTap(); }

  // Tied embeddings are at the first stage and at the last, each of which has a gradient: their sum is the gradient of both.
  void sum_tied_gradient(const std::vector<Parameter>& parameters) const;
  // Of the gradients of all parts, each counted once; all ranks of the replica call it.
  double gradient_norm(const std::vector<Parameter>& owned) const;

  // Model and parameters are whole at the replica's rank 0, until they go. All its ranks call these.
  void come_to_leader();
  void go_from_leader();
  const std::vector<Parameter>& whole() const { return whole_; }
  // What rank 0 has in whole() becomes the parts.
  void scatter() const;

  using Tensors = std::map<std::string, at::Tensor>;
  // An optimizer's state, named as Optimizer::for_each_state does: of the parts together at rank 0, elsewhere nothing; and the other way round.
  Tensors gather_state(const Tensors& part) const;
  Tensors scatter_state(const Tensors& whole) const;

 private:
  std::vector<int> stages_of(const std::string& name) const { return train::stages_of(name, model_.spec, size_.pipeline); }
  bool is_kept_by(int member, const std::string& name) const;  // the one that gives it to rank 0
  at::Tensor piece_of(const at::Tensor& whole, const std::string& name, int member) const;
  const at::Tensor& find_whole(const std::string& name) const;
  void set_whole_here(bool here);

  dist::ProcessGroup& world_;
  ModelParallelSize size_;
  std::unique_ptr<dist::ProcessGroup> data_, replica_, tensor_, stages_, tied_;
  Range blocks_;
  nn::Model& model_;
  nn::Model whole_model_, part_model_;  // whole: its tensors that are no part of this rank's are empty but while they are at the leader
  std::vector<Parameter> whole_;
  std::map<std::string, at::Tensor> part_;
  std::map<std::string, int64_t> cuts_;  // by name, the dimension along which a parameter is cut
};

}  // namespace frugal::train
