// ShortGPT, arXiv 2403.03853 (Men et al., 2024), equation 1: block influence BI_i = 1 - E_t[cos(X_i,t, X_i+1,t)], the angle by which
// a block turns the hidden states of the calibration tokens; the blocks of lowest influence are removed, all at once.
// order=last and order=random remove as many from the end or anywhere: the baselines of its claim.
//
// Nothing differs from the paper. Influence is measured once, on the model as it stands.
// Cost: one forward of the calibration tokens. Peak memory: that of a forward, one sequence at a time.
#include "prune/shortgpt.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/progress.h"
#include "chain/chain.h"

namespace frugal::prune {
namespace {

std::vector<double> measure(chain::Workbench& bench) {
  nn::Model& model = bench.model;
  const std::vector<int32_t>& tokens = bench.text.tokens;
  const auto length = static_cast<size_t>(std::max<int64_t>(1, bench.calibration.sequence_length));
  if (tokens.empty()) fail(ErrorKind::invalid_input, "shortgpt needs calibration text");
  std::vector<double> influence(model.blocks.size(), 0);
  Progress progress("block influence", static_cast<int64_t>((tokens.size() + length - 1) / length));
  const at::NoGradGuard no_grad;
  for (size_t begin = 0; begin < tokens.size(); begin += length) {
    const std::span<const int32_t> sequence(tokens.data() + begin, std::min(length, tokens.size() - begin));
    const nn::SequenceSlice slice{0, static_cast<int64_t>(sequence.size()), nullptr};
    const Tensor positions = nn::Model::positions({&slice, 1});
    Tensor hidden = model.embed(sequence);
    for (size_t i = 0; i < model.blocks.size(); ++i) {
      const Tensor next = model.blocks[i].forward(hidden, {&slice, 1}, positions);
      influence[i] += block_influence(hidden, next) * static_cast<double>(sequence.size()) / static_cast<double>(tokens.size());
      hidden = next;
    }
    progress.step();
  }
  return influence;
}

// "model.layers.7.mlp.up_proj" -> "model.layers.5.mlp.up_proj": Hugging Face's names count blocks without gaps.
std::string renumbered(const std::string& name, size_t from, size_t to) {
  const std::string before = fmt::format("layers.{}.", from);
  const size_t at = name.find(before);
  return at == std::string::npos ? name : name.substr(0, at) + fmt::format("layers.{}.", to) + name.substr(at + before.size());
}

void remove_blocks(nn::Model& model, const std::vector<int>& dropped) {
  std::vector<nn::Block> blocks;
  std::vector<nn::BlockSpec> specs;
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    if (std::binary_search(dropped.begin(), dropped.end(), static_cast<int>(i))) continue;
    nn::Block block = std::move(model.blocks[i]);
    for (nn::Linear* linear : block.linears()) linear->rename(renumbered(linear->name(), i, blocks.size()));
    block.spec.state_slot = static_cast<int>(blocks.size());
    specs.push_back(block.spec);
    blocks.push_back(std::move(block));
  }
  model.blocks = std::move(blocks);
  model.spec.blocks = std::move(specs);
}

void run(chain::Workbench& bench, const Options& options) {
  const auto total = static_cast<int64_t>(bench.model.blocks.size());
  if (options.given("ratio") && options.given("blocks")) fail(ErrorKind::invalid_input, "shortgpt: give blocks or ratio, not both");
  const int64_t count =
      options.given("ratio") ? static_cast<int64_t>(std::floor(options.number("ratio") * static_cast<double>(total) + 1e-9)) : options.integer("blocks");
  if (count >= total) fail(ErrorKind::invalid_input, "shortgpt: cannot drop {} of {} blocks", count, total);
  const std::string& text = options.text("order");
  const DropOrder order = text == "influence" ? DropOrder::influence : text == "last" ? DropOrder::last : DropOrder::random;
  const std::vector<double> influence = order == DropOrder::influence ? measure(bench) : std::vector<double>(static_cast<size_t>(total), 0);
  remove_blocks(bench.model, choose_blocks(influence, count, order, bench.rng));
}

}  // namespace

double block_influence(const Tensor& input, const Tensor& output) { return 1 - at::cosine_similarity(input, output, /*dim=*/1).mean().item<double>(); }

std::vector<int> choose_blocks(const std::vector<double>& influence, int64_t count, DropOrder order, Rng& rng) {
  std::vector<int> blocks(influence.size());
  std::iota(blocks.begin(), blocks.end(), 0);
  if (order == DropOrder::influence) {
    for (const double value : influence) {
      if (!std::isfinite(value)) fail(ErrorKind::invalid_input, "shortgpt: hidden states are not finite");
    }
    std::stable_sort(blocks.begin(), blocks.end(), [&](int a, int b) { return influence[static_cast<size_t>(a)] < influence[static_cast<size_t>(b)]; });
  } else if (order == DropOrder::last) {
    std::reverse(blocks.begin(), blocks.end());
  } else {
    for (size_t i = blocks.size(); i > 1; --i) std::swap(blocks[i - 1], blocks[rng.below(i)]);
  }
  blocks.resize(static_cast<size_t>(count));
  std::sort(blocks.begin(), blocks.end());
  return blocks;
}

chain::StepRow shortgpt_row() {
  chain::StepRow row;
  row.id = "shortgpt";
  row.title = "ShortGPT";
  row.leaf = "prune";
  row.arxiv = "2403.03853";
  row.summary = "removes the blocks that turn the hidden states least";
  row.options = {integer_option("blocks", 1, 0, 1 << 20, "how many blocks are removed"), number_option("ratio", 0, 0, 1, "instead of blocks: their share"),
                 choice_option("order", "influence", {"influence", "last", "random"}, "which go first: lowest influence, last, random")};
  row.function = {.scope = chain::StepScope::model, .effect = chain::StepEffect::structure, .run_model = run};
  const std::vector<std::string> method = {"shortgpt:blocks=6"};
  row.claims = {{.statement = "a fifth of the blocks removed by influence: perplexity under removing random ones",
                 .model = "S",
                 .baseline = {"shortgpt:blocks=6,order=random"},
                 .method = method},
                {.statement = "a fifth of the blocks removed by influence: perplexity under removing the last ones",
                 .model = "S",
                 .baseline = {"shortgpt:blocks=6,order=last"},
                 .method = method}};
  return row;
}

}  // namespace frugal::prune
