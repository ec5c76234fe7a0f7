// A block in serving: the computation of block.cpp, value for value, into buffers that all blocks of a step share. What a decode
// step of a small model costs beside its products is mostly the making of tensors: 2 us each, 20 in a block.
#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <tuple>

#include "base/error.h"
#include "nn/model.h"
#include "nn/rope_table.h"
#include "ops/into.h"

namespace frugal::nn {

struct Workspace::Buffers {
  Tensor normed, query, key, value, attended, projected, gate, up;
  ops::QuantizedActivations quantized;
  // `projected`, normed and scaled first where there is something to do it with, is still to be added to the hidden rows, which then are.
  struct Residual {
    bool waits = false;
    const Norm* output_norm = nullptr;
    const Tensor* branch_scale = nullptr;
    double hidden_scale = 1;
    const Norm* sum_norm = nullptr;
  } residual;
};

Workspace::Workspace() : buffers_(std::make_unique<Buffers>()) {}
Workspace::~Workspace() = default;

namespace {

using ops::RowRange;
using ops::RowWork;

// The buffer, anew where the shape is another one than the block before had.
Tensor& sized(Tensor& buffer, at::IntArrayRef shape) {
  if (!buffer.defined() || buffer.sizes() != shape) buffer = at::empty(shape, at::kFloat);
  return buffer;
}

// Whether these are single packed matrices that read one form of their input.
bool share_packed_input(std::span<const Linear* const> linears) {
  const formats::ActivationQuant quant = linears.front()->kinds().front()->activation();
  for (const Linear* linear : linears) {
    const LinearKind& kind = *linear->kinds().front();
    if (linear->kinds().size() > 1 || !kind.packed() || !(kind.activation() == quant)) return false;
  }
  return true;
}

// `make` computes rows of x, which are not there before.
void apply(std::span<const Linear* const> linears, const Tensor& x, const RowWork& make, std::span<Tensor* const> outputs,
           ops::QuantizedActivations& quantized) {
  if (!share_packed_input(linears)) {
    if (make) ops::for_each_rows(x.size(0), x.size(1), make);
    const Activation input(x);
    for (size_t i = 0; i < linears.size(); ++i) outputs[i]->view({x.size(0), -1}).copy_(linears[i]->forward(input));
    return;
  }
  ops::quantize_into(x, linears.front()->kinds().front()->activation(), quantized, make);
  const ops::PackedMatrix* matrices[3];
  for (size_t i = 0; i < linears.size(); ++i) matrices[i] = linears[i]->kinds().front()->packed();
  ops::packed_linear_into(std::span(matrices, linears.size()), quantized, outputs);
  for (size_t i = 0; i < linears.size(); ++i) {
    if (linears[i]->bias().defined()) outputs[i]->view({x.size(0), -1}).add_(linears[i]->bias());
  }
}

void apply(const Norm& norm, const Tensor& x, Tensor& out, RowRange rows) {
  ops::rms_norm_into(x, norm.weight, norm.eps, norm.kind == NormKind::rms_plus_one ? 1.0 : 0.0, out, rows);
}

void multiply(Tensor& x, float factor, RowRange rows) {
  float* values = x.mutable_data_ptr<float>();
  for (int64_t i = rows.begin * x.size(1); i < std::min(rows.end, x.size(0)) * x.size(1); ++i) values[i] *= factor;
}

void add_residual(Workspace::Buffers& b, Tensor& hidden, RowRange rows) {
  if (!b.residual.waits) return;
  const Workspace::Buffers::Residual& r = b.residual;
  if (r.output_norm) apply(*r.output_norm, b.projected, b.projected, rows);
  if (r.branch_scale && r.branch_scale->defined()) multiply(b.projected, *r.branch_scale->const_data_ptr<float>(), rows);
  if (r.hidden_scale != 1) multiply(hidden, static_cast<float>(r.hidden_scale), rows);
  ops::add_in_place(hidden, b.projected, rows);
  if (r.sum_norm) apply(*r.sum_norm, hidden, hidden, rows);
}

}  // namespace

void Workspace::finish(Tensor& hidden) {
  ops::for_each_rows(hidden.size(0), hidden.size(1), [&](RowRange rows) { add_residual(*buffers_, hidden, rows); });
  buffers_->residual = {};
}

void Block::serve(Tensor& hidden, std::span<const SequenceSlice> sequences, const Tensor& positions, Workspace& workspace) const {
  Workspace::Buffers& b = workspace.buffers();
  const int64_t tokens = hidden.size(0);
  Tensor& normed = sized(b.normed, hidden.sizes());
  Tensor& projected = sized(b.projected, hidden.sizes());
  // Without a norm before them, attention and MLP read the hidden rows themselves.
  const bool norm_before = !spec.norm_after_add && spec.norm != NormKind::none;
  const Tensor& read = norm_before ? normed : hidden;
  const auto add_and_norm = [&](const Norm& norm) {
    return [&](RowRange rows) {
      add_residual(b, hidden, rows);
      if (norm_before) apply(norm, hidden, normed, rows);
    };
  };
  if (query) {
    Tensor& q = sized(b.query, {tokens, spec.heads, spec.head_dim});
    Tensor& k = sized(b.key, {tokens, spec.kv_heads, spec.head_dim});
    Tensor& v = sized(b.value, {tokens, spec.kv_heads, spec.head_dim});
    Tensor& attended = sized(b.attended, {tokens, spec.heads * spec.head_dim});
    apply(std::array{&query, &key, &value}, read, add_and_norm(input_norm), std::array{&q, &k, &v}, b.quantized);
    const std::shared_ptr<RopeTable> table = rope_for(sequences);
    ops::for_each_rows(tokens, (spec.heads + spec.kv_heads) * spec.head_dim, [&](RowRange rows) {
      if (spec.qk_norm) {
        apply(query_norm, q, q, rows);
        apply(key_norm, k, k, rows);
      }
      ops::rope_in_place(q, positions, table->cos(), table->sin(), rows);
      ops::rope_in_place(k, positions, table->cos(), table->sin(), rows);
    });
    if (begins_a_sequence(sequences)) std::tie(k, v) = with_prefix(k, v, positions);
    attend_sequences(q, k, v, sequences, attended);
    const RowWork norm = [&](RowRange rows) { apply(attention_sub_norm, attended, attended, rows); };
    apply(std::array{&output}, attended, spec.sub_norms ? norm : RowWork(), std::array{&projected}, b.quantized);
    b.residual = {true, spec.post_norms ? &attention_output_norm : nullptr, &attention_branch_scale, spec.residual_scale,
                  spec.norm_after_add ? &input_norm : nullptr};
  }
  if (gate) {
    Tensor& inner = sized(b.gate, {tokens, gate.out_features()});
    Tensor& up_out = sized(b.up, {tokens, up.out_features()});
    apply(std::array{&gate, &up}, read, add_and_norm(post_attention_norm), std::array{&inner, &up_out}, b.quantized);
    const auto activate = [&](RowRange rows) {
      ops::gated_activation_into(inner, up_out, spec.mlp == MlpKind::gated_silu ? ops::Gate::silu : ops::Gate::gelu_tanh, inner, rows);
      if (spec.sub_norms) apply(mlp_sub_norm, inner, inner, rows);
    };
    apply(std::array{&down}, inner, activate, std::array{&projected}, b.quantized);
    b.residual = {true, spec.post_norms ? &mlp_output_norm : nullptr, &mlp_branch_scale, spec.residual_scale,
                  spec.norm_after_add ? &post_attention_norm : nullptr};
  }
}

}  // namespace frugal::nn
