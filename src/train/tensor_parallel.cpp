#include "train/tensor_parallel.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"

namespace frugal::train {

using at::Tensor;
using torch::autograd::AutogradContext;

namespace {

// g.
class SumOverRanks : public torch::autograd::Function<SumOverRanks> {
 public:
  static Tensor forward(AutogradContext*, const Tensor& x, dist::ProcessGroup* group) { return summed(*group, x); }
  static torch::autograd::variable_list backward(AutogradContext*, torch::autograd::variable_list gradients) { return {gradients[0], Tensor()}; }
};

// Columns of a matrix: its outputs are parts of sums. (A Linear adds its bias behind them.)
class RowParallelKind : public nn::DenseKind {
 public:
  RowParallelKind(Tensor weight, dist::ProcessGroup& group) : DenseKind(std::move(weight)), group_(group) {}
  Tensor forward(const nn::Activation& input) const override { return SumOverRanks::apply(DenseKind::forward(input), &group_); }

 private:
  dist::ProcessGroup& group_;
};

// Numbers of its own.
Tensor cut(const Tensor& whole, int64_t dimension, Range range) {
  const at::NoGradGuard no_grad;
  return whole.narrow(dimension, range.begin, range.count()).clone(at::MemoryFormat::Contiguous).requires_grad_(true);
}

constexpr nn::Linear nn::Block::*kByRows[] = {&nn::Block::query, &nn::Block::key, &nn::Block::value, &nn::Block::gate, &nn::Block::up};
constexpr nn::Linear nn::Block::*kByColumns[] = {&nn::Block::output, &nn::Block::down};

void cut_block(nn::Block& block, dist::ProcessGroup& group) {
  const auto part = [&](int64_t count) { return part_of(count, group.rank(), group.size()); };
  for (const auto member : kByRows) {
    nn::Linear& linear = block.*member;
    if (!linear) continue;
    const Range rows = part(linear.out_features());
    linear.replace(std::make_shared<nn::DenseKind>(cut(linear.dense(), 0, rows)), /*reshape=*/true);
    if (linear.bias().defined()) linear.mutable_bias() = cut(linear.bias(), 0, rows);
  }
  for (const auto member : kByColumns) {
    nn::Linear& linear = block.*member;
    if (linear) linear.replace(std::make_shared<RowParallelKind>(cut(linear.dense(), 1, part(linear.in_features())), group), /*reshape=*/true);
  }
  if (!block.spec.qk_norm) return;
  for (const nn::Norm* norm : {&block.query_norm, &block.key_norm}) {  // on all ranks, but each sees its own heads' gradient
    if (norm->weight.defined()) norm->weight.register_hook([&group](const Tensor& gradient) { return summed(group, gradient); });
  }
}

}  // namespace

Range part_of(int64_t count, int index, int parts) { return {count * index / parts, count * (index + 1) / parts}; }

void check_tensor_parallel(const nn::ModelSpec& spec, int size) {
  if (size == 1) return;
  for (size_t i = 0; i < spec.blocks.size(); ++i) {
    const nn::BlockSpec& block = spec.blocks[i];
    const auto divides = [&](int64_t count, const char* what) {
      if (count % size != 0)
        fail(ErrorKind::unsupported, "tensor_parallel_size: {} {} of block {} cannot be shared evenly by {} processes", count, what, i, size);
    };
    divides(block.heads, "heads");
    divides(block.kv_heads, "key-value heads");
    divides(block.intermediate, "channels of the MLP");
    if (block.sub_norms)
      fail(ErrorKind::unsupported, "tensor_parallel_size: block {} has norms over all heads and channels (sub_norms), of which a process has a part", i);
  }
  if (spec.vocab < size) fail(ErrorKind::unsupported, "tensor_parallel_size: a vocabulary of {} cannot be shared by {} processes", spec.vocab, size);
}

nn::BlockSpec tensor_parallel_spec(nn::BlockSpec block, int size) {
  block.heads /= size;
  block.kv_heads /= size;
  block.intermediate /= size;
  return block;
}

std::map<std::string, int64_t> tensor_parallel_cuts(const nn::Model& model) {
  std::map<std::string, int64_t> cuts = {{"model.embed_tokens.weight", 0}, {model.head.name() + ".weight", 0}};
  for (const nn::Block& block : model.blocks) {
    for (const auto member : kByRows) {
      cuts[(block.*member).name() + ".weight"] = 0;
      cuts[(block.*member).name() + ".bias"] = 0;
    }
    for (const auto member : kByColumns) cuts[(block.*member).name() + ".weight"] = 1;
  }
  return cuts;
}

nn::Model tensor_parallel_model(const nn::Model& model, dist::ProcessGroup& group, Range blocks, bool embeds, bool has_head) {
  nn::Model result = model;
  for (int64_t i = blocks.begin; i < blocks.end; ++i) {
    cut_block(result.blocks[static_cast<size_t>(i)], group);
    nn::Block& block = result.blocks[static_cast<size_t>(i)];
    block.spec = result.spec.blocks[static_cast<size_t>(i)] = tensor_parallel_spec(block.spec, group.size());
  }
  const auto by_tokens = [&](const Tensor& weight) {
    const Range rows = part_of(weight.size(0), group.rank(), group.size());
    return std::make_shared<VocabularyParallelKind>(cut(weight, 0, rows), rows.begin, weight.size(0), group);
  };
  const bool tied = model.spec.tied_embeddings;
  if (embeds || (has_head && tied)) result.embedding = by_tokens(model.embedding->dense());
  if (has_head) result.head.replace(tied ? result.embedding : by_tokens(model.head.dense()), /*reshape=*/true);
  return result;
}

nn::InputTap sums_of_input_gradients(dist::ProcessGroup& group) {
  return [&group](nn::InputPoint point, const Tensor& input) {
    if (point != nn::InputPoint::attention_input && point != nn::InputPoint::mlp_input) return;
    if (input.requires_grad()) input.register_hook([&group](const Tensor& gradient) { return summed(group, gradient); });
  };
}

Tensor VocabularyParallelKind::rows(const Tensor& ids) const {
  const Tensor local = ids - first_;
  const Tensor elsewhere = (local < 0).logical_or_(local >= out_features());
  const Tensor rows = DenseKind::rows(local.masked_fill(elsewhere, 0)).masked_fill(elsewhere.unsqueeze(1), 0);
  return SumOverRanks::apply(rows, &group_);
}

Tensor VocabularyParallelKind::forward(const nn::Activation&) const { fail(ErrorKind::internal, "the head is cut by tokens: no process has all logits"); }

Tensor summed(dist::ProcessGroup& group, const Tensor& tensor) {
  const at::NoGradGuard no_grad;
  const Tensor sum = tensor.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true, at::MemoryFormat::Contiguous);
  group.all_reduce(sum)->wait();
  return sum.to(tensor.scalar_type());
}

}  // namespace frugal::train
