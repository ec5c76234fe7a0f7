#include "train/hidden_states.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include "base/error.h"
#include "base/progress.h"

namespace frugal::train {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;

// What one block's forward reads beside the hidden rows.
struct BlockCall : torch::CustomClassHolder {
  const nn::Block* block = nullptr;
  int64_t index = 0;
  std::shared_ptr<const std::vector<nn::SequenceSlice>> sequences;
  Tensor positions;
  std::shared_ptr<const Recompute> recompute;
  Tensor random_state;  // when it ran first

  Tensor run(const Tensor& hidden) const { return block->forward(hidden, *sequences, positions, recompute->inputs); }
};

// The weights of a block are here as long as it lives.
class WeightsHere {
 public:
  WeightsHere(const Recompute& recompute, int64_t block) : recompute_(recompute), block_(block) {
    if (recompute_.weights) recompute_.weights(block_, true);
  }
  ~WeightsHere() {
    if (recompute_.weights) recompute_.weights(block_, false);
  }
  WeightsHere(const WeightsHere&) = delete;
  WeightsHere& operator=(const WeightsHere&) = delete;

 private:
  const Recompute& recompute_;
  int64_t block_;
};

// Keeps the block's input; its backward runs the block again and then backward through it, which adds to the leaves' gradients.
class RecomputedBlock : public torch::autograd::Function<RecomputedBlock> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& hidden, const c10::intrusive_ptr<BlockCall>& call) {
    context->save_for_backward({hidden});
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    if (call->recompute->random_state) call->random_state = call->recompute->random_state();
    const WeightsHere here(*call->recompute, call->index);
    const at::AutoGradMode grad(true);  // the same kernels as in backward, so the same bits; what they keep goes at once
    return call->run(hidden.detach().requires_grad_()).detach();
  }

  static torch::autograd::variable_list backward(AutogradContext* context, torch::autograd::variable_list gradients) {
    const auto call = c10::static_intrusive_pointer_cast<BlockCall>(context->saved_data["call"].toCapsule());
    const Recompute& recompute = *call->recompute;
    const Tensor hidden = context->get_saved_variables()[0].detach().requires_grad_();
    const at::AutoGradMode grad(true);
    const Tensor now = recompute.random_state ? recompute.random_state() : Tensor();
    if (now.defined()) recompute.set_random_state(call->random_state);
    const WeightsHere here(recompute, call->index);
    const Tensor out = call->run(hidden);
    if (now.defined()) recompute.set_random_state(now);
    torch::autograd::backward({out}, {gradients[0]});
    return {hidden.grad(), Tensor()};
  }
};

}  // namespace

Tensor through_blocks(const nn::Model& model, Tensor hidden, const nn::Batch& batch, const Recompute& recompute, int64_t begin, int64_t end) {
  const Tensor positions = nn::Model::positions(batch.sequences);
  FRUGAL_ASSERT(positions.size(0) == static_cast<int64_t>(batch.tokens.size()));
  const bool recomputes = recompute.every > 0 && at::GradMode::is_enabled();
  const auto sequences = std::make_shared<const std::vector<nn::SequenceSlice>>(batch.sequences);
  const auto shared = std::make_shared<const Recompute>(recompute);
  FRUGAL_ASSERT(!recompute.weights || recompute.every == 1 || !recomputes);
  for (int64_t index = begin; index < end; ++index) {
    const nn::Block& block = model.blocks[static_cast<size_t>(index)];
    stop_point();
    if (!recomputes || index % recompute.every != 0) {
      const WeightsHere here(recompute, index);
      hidden = block.forward(hidden, *sequences, positions, recompute.inputs);
      continue;
    }
    // What trains may lie in the block alone: the function must have an input that wants a gradient.
    if (!hidden.requires_grad()) hidden = hidden.detach().requires_grad_();
    auto call = c10::make_intrusive<BlockCall>();
    call->block = &block;
    call->index = index;
    call->sequences = sequences;
    call->positions = positions;
    call->recompute = shared;
    hidden = RecomputedBlock::apply(hidden, call);
  }
  return hidden;
}

Tensor hidden_states(const nn::Model& model, const nn::Batch& given, const Recompute& recompute) {
  const std::optional<nn::Model::Completed> with_virtual = model.completed(given);
  const nn::Batch& batch = with_virtual ? with_virtual->batch : given;
  const Tensor hidden = through_blocks(model, model.embed(batch.tokens), batch, recompute, 0, std::ssize(model.blocks));
  return model.final_norm.forward(with_virtual ? hidden.index_select(0, with_virtual->rows) : hidden);
}

}  // namespace frugal::train
