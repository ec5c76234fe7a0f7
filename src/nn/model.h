// The model: embedding, blocks, final norm, head. The same modules train (autograd, expanded weights) and serve
// (inference mode, packed weights, fused kernels).
#pragma once

#include <memory>
#include <optional>
#include <span>

#include "nn/linear.h"
#include "nn/spec.h"
#include "nn/state.h"
#include "ops/ops.h"

namespace frugal::nn {

class RopeTable;

struct Norm {
  NormKind kind = NormKind::rms;
  double eps = 1e-6;
  Tensor weight;                          // [features] float32; undefined: none
  Tensor forward(const Tensor& x) const;  // [..., features]
};

// Places in a block where Linears read a common input: what calibration captures, once per place.
enum class InputPoint { attention_input, attention_output, mlp_input, mlp_output };
inline constexpr InputPoint kInputPoints[] = {InputPoint::attention_input, InputPoint::attention_output, InputPoint::mlp_input, InputPoint::mlp_output};
std::string_view to_string(InputPoint point);  // "attention_input", ...

// A run of rows of the batch that belongs to one sequence. state == nullptr: a whole sequence from position 0, nothing
// remembered. Otherwise its positions continue at state->length(), and the state is advanced.
struct SequenceSlice {
  int64_t begin = 0;
  int64_t count = 0;
  SequenceState* state = nullptr;
  int64_t logit_rows = 1;  // with ForwardOptions::Logits::chosen, so many of its last rows want logits
  // Not negative: this forward takes the rows from where state->passage has them to before this block; the same rows come again in later
  // forwards, and are there, with logits, when they have passed the last block (layered prefill, arXiv 2510.08055). Such slices are the last
  // of a batch, and all at the same block.
  int64_t until_block = -1;
};

struct Batch {
  std::vector<int32_t> tokens;
  std::vector<SequenceSlice> sequences;  // cover tokens without gaps
  static Batch single(std::span<const int32_t> tokens, SequenceState* state);
  static Batch equal_parts(std::span<const int32_t> tokens, int64_t length);  // stateless sequences of `length`
};

using InputTap = std::function<void(InputPoint point, const Tensor& input)>;  // input [tokens, features]

// Buffers that the blocks of one forward share in serving (Block::serve), and what the last one has yet to add to the hidden rows: the
// next block's norm reads them anyhow.
class Workspace {
 public:
  Workspace();
  ~Workspace();
  struct Buffers;
  Buffers& buffers() { return *buffers_; }
  void finish(Tensor& hidden);  // adds it: after the last block

 private:
  std::unique_ptr<Buffers> buffers_;
};

// One decoder block: x += attention(norm(x)); x += mlp(norm(x)), with the variations that BlockSpec names.
class Block {
 public:
  BlockSpec spec;
  Norm input_norm, post_attention_norm;             // the second one is the norm before the MLP
  Norm attention_output_norm, mlp_output_norm;      // spec.post_norms
  Norm query_norm, key_norm;                        // spec.qk_norm
  Norm attention_sub_norm, mlp_sub_norm;            // spec.sub_norms
  Tensor attention_branch_scale, mlp_branch_scale;  // [1] float32, spec.branch_scales
  Linear query, key, value, output;                 // absent (false) when attention was pruned away
  Linear gate, up, down;                            // absent when the MLP was pruned away
  // What stands in place of the keys and values of Model::virtual_tokens (prefix tuning).
  struct Prefix {
    int64_t count = 0;
    std::function<std::pair<Tensor, Tensor>()> keys_values;  // [count, kv_heads, head_dim] each; with a gradient where it is trained
  };
  Prefix prefix;

  // hidden [tokens, spec.hidden] -> the same shape. positions [tokens] int64.
  Tensor forward(const Tensor& hidden, std::span<const SequenceSlice> sequences, const Tensor& positions, const InputTap& tap = {}) const;

  // The same in place (complete after workspace.finish) and without gradient; fastest where Linears that read one input are single packed matrices.
  void serve(Tensor& hidden, std::span<const SequenceSlice> sequences, const Tensor& positions, Workspace& workspace) const;

  // The two halves, without residual and outer norms; x is what the first Linear of each reads.
  Tensor attend(const Tensor& x, std::span<const SequenceSlice> sequences, const Tensor& positions, const InputTap& tap = {}) const;
  Tensor mlp(const Tensor& x, const InputTap& tap = {}) const;

  std::vector<Linear*> linears();
  std::vector<Linear*> linears_at(InputPoint point);
  std::vector<std::pair<std::string, Norm*>> norms();            // present ones, with their Hugging Face names in the block
  std::vector<std::pair<std::string, Tensor*>> branch_scales();  // the same
  void set_execution(Execution execution);
  uint64_t storage_bytes() const;

 private:
  std::shared_ptr<RopeTable> rope_for(std::span<const SequenceSlice> sequences) const;
  bool begins_a_sequence(std::span<const SequenceSlice> sequences) const;  // so that the prefix has something to stand in place of
  // k, v [tokens, kv_heads, head_dim] with the prefix in them.
  std::pair<Tensor, Tensor> with_prefix(const Tensor& k, const Tensor& v, const Tensor& positions) const;
  ops::AttentionOptions attention_options() const;
  // Writes keys and values to the states and attends: q, k, v [tokens, heads, head_dim] -> out [tokens, heads * head_dim].
  void attend_sequences(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const SequenceSlice> sequences, Tensor& out) const;
};

struct ForwardOptions {
  enum class Logits { all, last, chosen, none };  // rows that want logits: every one, the last of each sequence, what the slices say, none
  Logits logits = Logits::all;
};

struct ForwardResult {
  Tensor hidden;  // [tokens, hidden], after the final norm
  Tensor logits;  // [rows, vocab] float32, or undefined
};

// Positions that every sequence begins with and that are no text (prompt tuning, arXiv 2104.08691; prefix tuning, arXiv 2101.00190). The tokens
// vocab, vocab + 1, ... stand for them: Model::forward puts them before sequences without a state; who makes states begins them with
// Model::virtual_ids().
struct VirtualTokens {
  int64_t count = 0;
  Tensor rows;  // [count, hidden], what the first block reads; undefined: zeros, of which nothing is read but Block::prefix
};

class Model {
 public:
  ModelSpec spec;
  std::shared_ptr<LinearKind> embedding;  // [vocab, hidden]
  std::vector<Block> blocks;
  Norm final_norm;
  Linear head;  // tied: its kind is `embedding` itself
  VirtualTokens virtual_tokens;
  uint64_t original_parameters = 0;                 // of the checkpoint that the chain began with, tied counted once
  std::vector<std::shared_ptr<const void>> owners;  // mapped files that weights point into

  // Reserves room in the states first; Error{out_of_memory} when a cache is full. Between blocks is a stop point (base/progress.h): after an
  // exception the states are as they were.
  ForwardResult forward(const Batch& batch, const ForwardOptions& options = {}) const;

  // The pieces that forward is made of, for the layer loop.
  Tensor embed(std::span<const int32_t> tokens) const;  // [tokens, hidden]
  std::vector<int32_t> virtual_ids() const;             // empty without virtual tokens
  // The batch with the virtual tokens before each sequence that has no state, and which of its rows the given ones are; nothing: it stays as it is.
  struct Completed {
    Batch batch;
    Tensor rows;  // [tokens] int64
  };
  std::optional<Completed> completed(const Batch& batch) const;
  Tensor logits(const Tensor& normed) const;                          // head and softcap
  static Tensor positions(std::span<const SequenceSlice> sequences);  // [tokens] int64

  void set_execution(Execution execution);
  // Every float tensor with its Hugging Face name: norms, biases, dense weights. Encoded weights are not visited.
  void for_each_tensor(const TensorVisitor& visit);
  void for_each_linear(const std::function<void(Linear&)>& visit);  // blocks' Linears, then an untied head
  uint64_t parameters() const;                                      // numbers in the float view of the model as it is now, tied counted once
  uint64_t storage_bytes() const;                                   // weights as written, without container overhead

 private:
  ForwardResult run(const Batch& given, const ForwardOptions& options) const;
  Execution execution_ = Execution::stored;
};

}  // namespace frugal::nn
