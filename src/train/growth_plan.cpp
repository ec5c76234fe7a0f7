#include "train/growth_plan.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "base/error.h"
#include "base/rng.h"
#include "nn/sharing.h"

namespace frugal::train {
namespace {

using at::Tensor;

// What the mean of squares of the residual stream is multiplied by.
double density(const Axis& hidden) { return static_cast<double>(hidden.copies * hidden.old_size) / static_cast<double>(hidden.size()); }

std::string block_prefix(size_t index) { return fmt::format("model.layers.{}.", index); }

Tensor chosen_rows(const Tensor& values, const Axis& rows) { return values.index_select(0, rows.source); }

// AdamW's state goes with the weights: the gradient of a copy is that of the old channel times its share, and the mean of squares is so squared.
class StateMap {
 public:
  StateMap(const TensorMap* from, TensorMap& to) : from_(from), to_(to) {}

  void move(const std::string& from, const std::string& to, const std::function<Tensor(const Tensor&)>& chosen, const Tensor& shares) {
    if (!from_) return;
    to_["step." + to] = old("step", from).clone();
    to_["exp_avg." + to] = (chosen(old("exp_avg", from)) * shares).contiguous();
    to_["exp_avg_sq." + to] = (chosen(old("exp_avg_sq", from)) * shares.square()).contiguous();
  }
  void begin(const std::string& to, const Tensor& parameter) {
    if (!from_) return;
    to_["step." + to] = at::zeros({});
    for (const std::string kind : {"exp_avg.", "exp_avg_sq."}) to_[kind + to] = at::zeros_like(parameter);
  }

 private:
  const Tensor& old(const std::string& kind, const std::string& name) const {
    const auto found = from_->find(kind + "." + name);
    if (found == from_->end()) fail(ErrorKind::invalid_input, "the optimizer state is not AdamW's of this model: it has no {}.{}", kind, name);
    return found->second;
  }
  const TensorMap* from_;
  TensorMap& to_;
};

class Grower {
 public:
  Grower(const nn::Model& model, const GrowthPlan& plan, const TensorMap* adamw, uint64_t seed)
      : old_(model), plan_(plan), seed_(seed), state_(adamw, grown_.optimizer), norm_scale_(std::sqrt(density(plan.hidden))) {}

  Grown run() {
    grown_.model = std::make_shared<nn::Model>();
    nn::Model& model = *grown_.model;
    model.spec = old_.spec;
    model.spec.hidden = plan_.hidden.size();
    model.spec.final_norm_eps *= density(plan_.hidden);
    model.spec.blocks.clear();
    model.embedding = table(*old_.embedding, "model.embed_tokens");
    for (const BlockOrigin& origin : plan_.blocks) {
      model.blocks.push_back(block(origin, model.blocks.size()));
      model.spec.blocks.push_back(model.blocks.back().spec);
    }
    model.final_norm = final_norm();
    model.head = nn::Linear(old_.head.name(), old_.spec.tied_embeddings ? model.embedding : table(*old_.head.kinds().front(), old_.head.name()));
    model.original_parameters = model.parameters();
    return std::move(grown_);
  }

 private:
  // A matrix [vocab, hidden]: columns are copied. That the head so reads each copy with the whole weight, the final norm makes good.
  std::shared_ptr<nn::LinearKind> table(const nn::LinearKind& old, const std::string& name) {
    const Axis& hidden = plan_.hidden;
    const auto chosen = [&](const Tensor& values) { return values.index_select(1, hidden.source); };
    state_.move(name + ".weight", name + ".weight", chosen, hidden.share);
    return std::make_shared<nn::DenseKind>(chosen(old.dense()) * hidden.present);
  }

  nn::Block block(const BlockOrigin& origin, size_t index) {
    nn::Block block = old_.blocks[origin.block];
    nn::BlockSpec& spec = block.spec;
    spec.hidden = plan_.hidden.size();
    spec.heads = plan_.sizes.heads;
    spec.kv_heads = plan_.sizes.kv_heads;
    spec.intermediate = plan_.sizes.intermediate;
    spec.norm_eps *= density(plan_.hidden);
    spec.state_slot = static_cast<int>(index);
    const std::string from = block_prefix(origin.block), to = block_prefix(index);
    const Axis &hidden = plan_.hidden, &query = plan_.query, &key = plan_.key, &inner = plan_.intermediate;
    for (nn::Norm* norm : {&block.input_norm, &block.post_attention_norm}) norm->eps = spec.norm_eps;
    for (const auto& [name, norm] : block.norms()) {
      const bool of_heads = norm == &block.query_norm || norm == &block.key_norm;  // one vector for all heads
      const auto chosen = [&](const Tensor& values) { return of_heads ? values.clone() : chosen_rows(values, hidden); };
      norm->weight = chosen(norm->weight.to(at::kFloat)) * (of_heads ? 1 : norm_scale_);
      keep_state(from + name + ".weight", to + name + ".weight", norm->weight, chosen, of_heads ? at::ones({}) : hidden.share, origin.is_identity);
    }
    const auto grow_linear = [&](nn::Linear& linear, const Axis& out, const Axis& in, bool is_zero) {
      const std::string name = linear.name().substr(from.size());
      linear = grown_linear(linear, from + name, to + name, out, in, is_zero, origin.is_identity);
    };
    grow_linear(block.query, query, hidden, false);
    grow_linear(block.key, key, hidden, false);
    grow_linear(block.value, key, hidden, false);
    grow_linear(block.output, hidden, query, origin.is_identity);
    grow_linear(block.gate, inner, hidden, false);
    grow_linear(block.up, inner, hidden, false);
    grow_linear(block.down, hidden, inner, origin.is_identity);
    return block;
  }

  void keep_state(const std::string& from, const std::string& to, const Tensor& parameter, const std::function<Tensor(const Tensor&)>& chosen,
                  const Tensor& shares, bool is_new) {
    if (is_new)
      state_.begin(to, parameter);
    else
      state_.move(from, to, chosen, shares);
  }

  nn::Linear grown_linear(const nn::Linear& old, const std::string& from, const std::string& to, const Axis& out, const Axis& in, bool is_zero, bool is_new) {
    const Tensor weight = is_zero ? at::zeros({out.size(), in.size()}) : matrix(old.dense(), out, in);
    const auto chosen = [&](const Tensor& values) { return chosen_rows(values, out).index_select(1, in.source); };
    keep_state(from + ".weight", to + ".weight", weight, chosen, out.share.unsqueeze(1), is_new);
    Tensor bias;
    if (old.bias().defined()) {
      const auto chosen_bias = [&](const Tensor& values) { return chosen_rows(values, out); };
      bias = is_zero ? at::zeros({out.size()}) : chosen_bias(old.bias().to(at::kFloat)) * out.present;
      keep_state(from + ".bias", to + ".bias", bias, chosen_bias, out.share, is_new);
    }
    return nn::Linear(to, std::make_shared<nn::DenseKind>(weight), bias);
  }

  Tensor matrix(const Tensor& weight, const Axis& out, const Axis& in) {
    Tensor grown = chosen_rows(weight, out).index_select(1, in.source);
    grown = grown * (plan_.pairs ? pairing(out, in) : in.share.unsqueeze(0));
    if (in.has_new() || (in.copies > 1 && plan_.noise > 0)) {
      const Tensor drawn = normal({out.size(), in.size()}) * weight.square().mean().sqrt();
      // What reads a new channel, which is 0 now, is drawn as it is: it is what teaches the channel's writers.
      grown = grown + plan_.noise * centred(drawn, in) * in.present + drawn * (1 - in.present);
    }
    return (grown * out.present.unsqueeze(1)).contiguous();
  }

  // The weight with which a copy of an output reads a copy of an input: [out, in]; those of a row sum to 1 over the copies of a channel, and those
  // of the copies of an output sum to its number of copies times the share of the input.
  static Tensor pairing(const Axis& out, const Axis& in) {
    const int64_t writers = out.copies, readers = in.copies;
    Tensor weights = at::full({writers, readers}, 1.0 / static_cast<double>(readers));
    if (writers % readers == 0 || readers % writers == 0) {
      for (int64_t o = 0; o < writers; ++o) {
        for (int64_t i = 0; i < readers; ++i) {
          const bool reads = writers % readers == 0 ? o % readers == i : i % writers == o;
          weights[o][i] = reads ? std::min(1.0, static_cast<double>(writers) / static_cast<double>(readers)) : 0.0;
        }
      }
    }
    return weights.index_select(0, out.copy).index_select(1, in.copy);
  }

  // The old weight, parted over the copies; its gradient is whole for each, since the head's columns are.
  nn::Norm final_norm() {
    const Axis& hidden = plan_.hidden;
    const std::string name = "model.norm.weight";
    const auto chosen = [&](const Tensor& values) { return chosen_rows(values, hidden); };
    state_.move(name, name, chosen, at::ones({}));
    const Tensor uneven = centred(normal({1, hidden.size()}), hidden).squeeze(0) * hidden.share;
    const Tensor parts = hidden.share + plan_.noise * uneven + (1 - hidden.present);
    return {old_.final_norm.kind, old_.final_norm.eps * density(hidden), chosen(old_.final_norm.weight.to(at::kFloat)) * parts * norm_scale_};
  }

  // Less the mean over the copies of each channel, so that they cancel: [rows, axis].
  static Tensor centred(const Tensor& drawn, const Axis& axis) {
    const Tensor sums = at::zeros({drawn.size(0), axis.old_size}).index_add_(1, axis.source, drawn * axis.present);
    return drawn - sums.index_select(1, axis.source) * axis.share;
  }

  // Each from a stream of its own.
  Tensor normal(at::IntArrayRef shape) {
    Rng rng(seed_ * 0x9E3779B97F4A7C15 + ++drawn_);
    Tensor values = at::empty(shape, at::kFloat);
    float* data = values.mutable_data_ptr<float>();
    for (int64_t i = 0; i < values.numel(); ++i) data[i] = static_cast<float>(rng.normal());
    return values;
  }

  const nn::Model& old_;
  const GrowthPlan& plan_;
  uint64_t seed_, drawn_ = 0;
  Grown grown_;
  StateMap state_;
  double norm_scale_;
};

std::vector<int64_t> tiles(int64_t old_size, int64_t new_size) {
  std::vector<int64_t> sources(static_cast<size_t>(new_size));
  for (int64_t i = 0; i < new_size; ++i) sources[static_cast<size_t>(i)] = i % old_size;
  return sources;
}

void require_dense(const nn::Linear& linear) {
  if (linear.kinds().size() != 1 || !dynamic_cast<const nn::DenseKind*>(linear.kinds().front().get()))
    fail(ErrorKind::unsupported, "{} is {}: a model grows from plain floats only", linear.name(), linear.describe());
}

}  // namespace

Axis::Axis(const std::vector<int64_t>& sources, int64_t old) : old_size(old), copies(0) {
  std::vector<int64_t> counts(static_cast<size_t>(old)), from, copy_of;
  for (const int64_t channel : sources) {
    from.push_back(std::max<int64_t>(channel, 0));
    copy_of.push_back(channel < 0 ? 0 : counts[static_cast<size_t>(channel)]++);
  }
  std::vector<float> there, shares;
  for (const int64_t channel : sources) {
    there.push_back(channel < 0 ? 0 : 1);
    shares.push_back(channel < 0 ? 0 : 1 / static_cast<float>(counts[static_cast<size_t>(channel)]));
  }
  copies = *std::max_element(counts.begin(), counts.end());
  source = at::tensor(from, at::kLong);
  copy = at::tensor(copy_of, at::kLong);
  present = at::tensor(there, at::kFloat);
  share = at::tensor(shares, at::kFloat);
}

Axis Axis::circular(int64_t old_size, int64_t new_size) { return {tiles(old_size, new_size), old_size}; }

Axis Axis::padded(int64_t old_size, int64_t new_size) {
  std::vector<int64_t> sources = tiles(old_size, new_size);
  for (int64_t i = new_size / old_size * old_size; i < new_size; ++i) sources[static_cast<size_t>(i)] = -1;
  return {sources, old_size};
}

Axis Axis::of_heads(const std::vector<int64_t>& sources, int64_t old_heads, int64_t head_dim) {
  std::vector<int64_t> channels;
  for (const int64_t head : sources) {
    for (int64_t i = 0; i < head_dim; ++i) channels.push_back(head * head_dim + i);
  }
  return {channels, old_heads * head_dim};
}

bool Axis::has_new() const { return present.min().item<float>() == 0; }

std::vector<OptionSpec> size_options() {
  const std::string proportion = " (0: in proportion to hidden_size)";
  return {integer_option("num_hidden_layers", 0, 0, 1 << 12, "blocks (0: as many as there are)"),
          integer_option("hidden_size", 0, 0, 1 << 20, "width of the residual stream (0: as it is)"),
          integer_option("intermediate_size", 0, 0, 1 << 24, "width inside the MLP" + proportion),
          integer_option("num_attention_heads", 0, 0, 1 << 12, "heads of the queries" + proportion),
          integer_option("num_key_value_heads", 0, 0, 1 << 12, "heads of keys and values (0: groups stay as large as they are)")};
}

OptionSpec noise_option(double fallback, std::string help) { return number_option("noise", fallback, 0, 10, std::move(help)); }

Sizes sizes_of(const nn::Model& model) {
  const nn::BlockSpec& block = model.spec.blocks.front();
  return {std::ssize(model.spec.blocks), model.spec.hidden, block.heads, block.kv_heads, block.intermediate};
}

Sizes wanted_sizes(const nn::Model& model, const Options& options) {
  const Sizes old = sizes_of(model);
  Sizes wanted = old;
  const auto given = [&](const char* name, int64_t otherwise) { return options.integer(name) > 0 ? options.integer(name) : otherwise; };
  wanted.layers = given("num_hidden_layers", old.layers);
  wanted.hidden = given("hidden_size", old.hidden);
  const auto in_proportion = [&](const char* name, int64_t value) {
    if (options.integer(name) > 0) return options.integer(name);
    if (value * wanted.hidden % old.hidden != 0)
      fail(ErrorKind::invalid_input, "{}: {} times {} / {} is no whole number: say how many it shall be", name, value, wanted.hidden, old.hidden);
    return value * wanted.hidden / old.hidden;
  };
  wanted.intermediate = in_proportion("intermediate_size", old.intermediate);
  const int64_t group = old.heads / old.kv_heads, key_heads = options.integer("num_key_value_heads");
  wanted.heads = options.integer("num_attention_heads") == 0 && key_heads > 0 ? key_heads * group : in_proportion("num_attention_heads", old.heads);
  if (key_heads == 0 && wanted.heads % group != 0)
    fail(ErrorKind::invalid_input, "num_attention_heads {} does not go into groups of {}, as the model has them: give num_key_value_heads as well",
         wanted.heads, group);
  wanted.kv_heads = key_heads > 0 ? key_heads : wanted.heads / group;
  if (wanted.heads % wanted.kv_heads != 0)
    fail(ErrorKind::invalid_input, "num_attention_heads {} is no multiple of num_key_value_heads {}", wanted.heads, wanted.kv_heads);
  if (wanted.heads / wanted.kv_heads < group)
    fail(ErrorKind::invalid_input, "{} heads on {} of keys and values are groups of {}, and the model has groups of {}: groups can only grow", wanted.heads,
         wanted.kv_heads, wanted.heads / wanted.kv_heads, group);
  bool grows = false;
  const auto require = [&](const char* name, int64_t before, int64_t after) {
    if (after < before) fail(ErrorKind::invalid_input, "{}: the model has {}, {} is fewer: it can only grow", name, before, after);
    grows = grows || after > before;
  };
  require("num_hidden_layers", old.layers, wanted.layers);
  require("hidden_size", old.hidden, wanted.hidden);
  require("intermediate_size", old.intermediate, wanted.intermediate);
  require("num_attention_heads", old.heads, wanted.heads);
  require("num_key_value_heads", old.kv_heads, wanted.kv_heads);
  if (!grows) fail(ErrorKind::invalid_input, "nothing grows: give num_hidden_layers, hidden_size, intermediate_size or heads that are more than the model's");
  if (old.hidden % old.heads == 0 && wanted.hidden % wanted.heads != 0)
    fail(ErrorKind::invalid_input, "hidden_size {} is no multiple of num_attention_heads {}: transformers does not open such a model", wanted.hidden,
         wanted.heads);
  return wanted;
}

GrowthPlan function_preserving_plan(const nn::Model& model, const Sizes& sizes) {
  const Sizes old = sizes_of(model);
  const int64_t head_dim = model.spec.blocks.front().head_dim, old_group = old.heads / old.kv_heads, group = sizes.heads / sizes.kv_heads;
  std::vector<int64_t> queries;
  for (int64_t head = 0; head < sizes.heads; ++head) queries.push_back(head / group % old.kv_heads * old_group + head % group % old_group);
  GrowthPlan plan{.sizes = sizes,
                  .hidden = Axis::padded(old.hidden, sizes.hidden),
                  .query = Axis::of_heads(queries, old.heads, head_dim),
                  .key = Axis::of_heads(tiles(old.kv_heads, sizes.kv_heads), old.kv_heads, head_dim),
                  .intermediate = Axis::circular(old.intermediate, sizes.intermediate),
                  .blocks = {}};
  const int64_t added = sizes.layers - old.layers;
  for (int64_t i = 0; i < old.layers; ++i) {
    plan.blocks.push_back({static_cast<size_t>(i), false});
    for (int64_t k = i * added / old.layers; k < (i + 1) * added / old.layers; ++k) plan.blocks.push_back({static_cast<size_t>(i), true});
  }
  return plan;
}

void require_growable(const nn::Model& model) {
  const nn::ModelSpec& spec = model.spec;
  const auto refuse = [&](const std::string& what) { fail(ErrorKind::unsupported, "a {} with {} does not grow: dense pre-norm blocks do", spec.family, what); };
  if (spec.blocks.empty()) refuse("no blocks");
  nn::BlockSpec first = spec.blocks.front();
  if (first.norm == nn::NormKind::none) refuse("no norms");
  if (first.norm_after_add) refuse("norms after the residual sum");
  if (first.residual_scale != 1 || first.branch_scales) refuse("a scaled residual sum");
  if (first.norm != nn::NormKind::rms || spec.final_norm != nn::NormKind::rms) refuse("norms that multiply by 1 + weight");
  if (first.post_norms) refuse("norms after attention and MLP");
  if (first.sub_norms) refuse("norms before the output projections");
  if (nn::sharing_of(spec).any()) refuse("blocks that share weights");
  if (spec.embedding_scale != 1) refuse("a scaled embedding");
  if (spec.logit_softcap != 0) refuse("capped logits");
  if (first.heads == 0 || first.intermediate == 0) refuse("a block without attention or MLP");
  for (size_t i = 0; i < spec.blocks.size(); ++i) {
    first.state_slot = spec.blocks[i].state_slot;
    if (spec.blocks[i] != first) refuse(fmt::format("blocks that differ (block {} from block 0)", i));
  }
  require_dense(nn::Linear("model.embed_tokens", model.embedding));
  const_cast<nn::Model&>(model).for_each_linear([](nn::Linear& linear) { require_dense(linear); });
}

Grown grow(const nn::Model& model, const GrowthPlan& plan, const TensorMap* adamw, uint64_t seed) {
  const at::NoGradGuard no_grad;
  if (density(plan.hidden) != 1 && model.spec.blocks.front().qk_norm)
    fail(ErrorKind::unsupported,
         "hidden_size {} is no multiple of {}, for which the epsilon of the norms must change, and norms of q and k, which have it too, must keep it",
         plan.hidden.size(), plan.hidden.old_size);
  return Grower(model, plan, adamw, seed).run();
}

}  // namespace frugal::train
