// Tensor parallelism: Megatron-LM (Shoeybi et al., 2019, arXiv 1909.08053), section 3. The ranks of a group share every matrix of a model and compute
// the same tokens: q, k, v, gate and up are cut by rows (each rank has some of the heads, some of the MLP's channels), o and down by columns, so that a
// block needs two sums forward and two backward. The paper's pair of conjugate functions is
//
//   g  forward a sum over the ranks, backward the identity: behind o and down
//   f  forward the identity, backward a sum over the ranks: a hook on the gradient of what q, k, v and what gate, up read
//
// Embedding and head are cut by tokens: looking rows up is summed by g, and the loss is computed where the logits are (cross_entropy.h). Norms, and biases
// behind a sum, are on all ranks, with equal gradients. Cost, a token: four times the residual stream, sent and summed.
//
// Where it differs: the vocabulary is not padded, it is cut as evenly as it goes; of the loss one sum of three numbers a row is sent, not three of one
// (cross_entropy.cpp).
#pragma once

#include <map>
#include <memory>
#include <string>

#include "dist/process_group.h"
#include "nn/model.h"

namespace frugal::train {

// [begin, end) of `count` for the part of `index` among `parts`.
struct Range {
  int64_t begin = 0, end = 0;
  int64_t count() const { return end - begin; }
  bool holds(int64_t i) const { return i >= begin && i < end; }
};
Range part_of(int64_t count, int index, int parts);

// Throws Error{unsupported} that says which number does not divide, or what of the model cannot be cut.
void check_tensor_parallel(const nn::ModelSpec& spec, int size);

// What a rank computes of a block.
nn::BlockSpec tensor_parallel_spec(nn::BlockSpec block, int size);

// The dimension along which each parameter is cut, by name; those that are whole on all ranks are not in it.
std::map<std::string, int64_t> tensor_parallel_cuts(const nn::Model& model);

// `model`, whose matrices are float32 (full_parameters.h), as the group's rank computes it in `blocks` and, where it does that, at both ends; the rest
// stays as it is. What is cut becomes leaves of its own, what is not is shared with `model`. The group is referred to.
nn::Model tensor_parallel_model(const nn::Model& model, dist::ProcessGroup& group, Range blocks, bool embeds, bool has_head);

// f, for hidden_states.
nn::InputTap sums_of_input_gradients(dist::ProcessGroup& group);

// Rows of an embedding, or of a head: those of the tokens [first, first + its rows).
class VocabularyParallelKind : public nn::DenseKind {
 public:
  VocabularyParallelKind(at::Tensor weight, int64_t first, int64_t vocab, dist::ProcessGroup& group)
      : DenseKind(std::move(weight)), first_(first), vocab_(vocab), group_(group) {}
  at::Tensor rows(const at::Tensor& ids) const override;
  at::Tensor forward(const nn::Activation& input) const override;  // Error{internal}: nobody has all logits
  int64_t first() const { return first_; }
  int64_t vocab() const { return vocab_; }
  dist::ProcessGroup& group() const { return group_; }

 private:
  int64_t first_, vocab_;
  dist::ProcessGroup& group_;
};

// The sum over the ranks of a group in float32, of the tensor's own type.
at::Tensor summed(dist::ProcessGroup& group, const at::Tensor& tensor);

}  // namespace frugal::train
