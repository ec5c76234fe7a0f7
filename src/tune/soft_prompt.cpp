#include "tune/soft_prompt.h"

#include <ATen/ATen.h>

#include "base/error.h"

namespace frugal::tune {
namespace {

using at::Tensor;

class PromptRows : public SoftPrompt {
 public:
  explicit PromptRows(Tensor rows) : rows_(rows.set_requires_grad(true)) {}
  void put(nn::Model& model) const override { model.virtual_tokens = {rows_.size(0), rows_}; }
  std::vector<train::Parameter> parameters() override { return {{"prompt_encoder.embedding.weight", rows_}}; }
  Tensor embeddings() const override { return rows_; }

 private:
  Tensor rows_;
};

class PrefixTables : public SoftPrompt {
 public:
  PrefixTables(Tensor table, std::optional<PrefixProjection> projection) : state_(std::make_shared<State>(std::move(table), std::move(projection))) {
    for (train::Parameter& parameter : parameters()) parameter.tensor.set_requires_grad(true);
  }

  void put(nn::Model& model) const override {
    model.virtual_tokens = {state_->table.size(0), {}};
    for (size_t i = 0; i < model.blocks.size(); ++i) {
      const nn::BlockSpec& spec = model.blocks[i].spec;
      const int64_t width = spec.kv_heads * spec.head_dim, begin = 2 * width * static_cast<int64_t>(i);
      model.blocks[i].prefix = {state_->table.size(0), [state = state_, width, begin, heads = spec.kv_heads] {
                                  const Tensor both = state->columns(begin, 2 * width);
                                  const auto part = [&](int64_t from) { return both.narrow(1, from, width).reshape({both.size(0), heads, width / heads}); };
                                  return std::pair(part(0), part(width));
                                }};
    }
  }

  std::vector<train::Parameter> parameters() override {
    std::vector<train::Parameter> result = {{"prompt_encoder.embedding.weight", state_->table}};
    if (!state_->projection) return result;
    const PrefixProjection& p = *state_->projection;
    result.push_back({"prompt_encoder.transform.0.weight", p.first});
    result.push_back({"prompt_encoder.transform.0.bias", p.first_bias, 1, false});
    result.push_back({"prompt_encoder.transform.2.weight", p.second});
    result.push_back({"prompt_encoder.transform.2.bias", p.second_bias, 1, false});
    return result;
  }

  Tensor embeddings() const override { return state_->columns(0, state_->width()); }

 private:
  struct State {
    Tensor table;
    std::optional<PrefixProjection> projection;

    int64_t width() const { return projection ? projection->second.size(0) : table.size(1); }
    // Each block asks for its own: a block that is computed again for its gradient is so alone.
    Tensor columns(int64_t begin, int64_t count) const {
      if (!projection) return table.narrow(1, begin, count);
      const Tensor inner = at::tanh(at::linear(table, projection->first, projection->first_bias));
      return at::linear(inner, projection->second.narrow(0, begin, count), projection->second_bias.narrow(0, begin, count));
    }
  };
  std::shared_ptr<State> state_;
};

}  // namespace

void SoftPrompt::take_out(nn::Model& model) {
  model.virtual_tokens = {};
  for (nn::Block& block : model.blocks) block.prefix = {};
}

std::unique_ptr<SoftPrompt> prompt_rows(Tensor rows) { return std::make_unique<PromptRows>(std::move(rows)); }

std::unique_ptr<SoftPrompt> prefix_tables(Tensor table, std::optional<PrefixProjection> projection) {
  return std::make_unique<PrefixTables>(std::move(table), std::move(projection));
}

int64_t prefix_width(const nn::Model& model, const std::string& source) {
  const nn::BlockSpec& first = model.blocks.at(0).spec;
  for (const nn::Block& block : model.blocks) {
    if (!block.query || block.spec.kv_heads != first.kv_heads || block.spec.head_dim != first.head_dim)
      fail(ErrorKind::unsupported, "{}: a prefix is for blocks that all have attention with the same heads", source);
  }
  return std::ssize(model.blocks) * 2 * first.kv_heads * first.head_dim;
}

io::PeftConfig checked_soft_prompt(const nn::Model& model, io::PeftConfig config, const std::string& source) {
  if (model.virtual_tokens.count > 0) fail(ErrorKind::unsupported, "{}: the model has a soft prompt already; one goes at a time", source);
  if (config.virtual_tokens >= model.spec.context_length) {
    fail(ErrorKind::invalid_input, "{}: {} virtual tokens leave no room in the model's context of {}", source, config.virtual_tokens,
         model.spec.context_length);
  }
  const nn::BlockSpec& spec = model.blocks.at(0).spec;
  const bool prefix = config.type == io::PeftType::prefix_tuning;
  config.layers = std::ssize(model.blocks);
  config.attention_heads = prefix ? spec.kv_heads : spec.heads;
  config.token_dim = prefix ? spec.kv_heads * spec.head_dim : model.spec.hidden;
  return config;
}

}  // namespace frugal::tune
