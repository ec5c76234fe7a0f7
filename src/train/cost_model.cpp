#include "train/cost_model.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "nn/sharing.h"
#include "train/new_model.h"
#include "train/per_parameter.h"

namespace frugal::train {
namespace {

constexpr double kFloat = sizeof(float);
constexpr double kBucketBytes = 25 << 20;  // of GradientReducer; one is filled while another is on its way
constexpr double kLogitBytes = 32 << 20;   // of cross_entropy

double numbers_of(const std::vector<Parameter>& parameters) {
  double sum = 0;
  for (const Parameter& parameter : parameters) sum += static_cast<double>(parameter.tensor.numel());
  return sum;
}

// State of parameters by their shapes, of optimizers made for them. Of large matrices by two of fewer rows: state grows with rows evenly.
class StateBytes {
 public:
  StateBytes(const MethodRow<OptimizerFactory>& row, const Options& options) : row_(row), options_(options) {}

  double of(const Parameter& parameter) {
    const std::vector<int64_t> shape = parameter.tensor.sizes().vec();
    constexpr int64_t kRows = 4096;
    if (shape.size() < 2 || shape[0] <= 2 * kRows) return made(parameter, shape);
    const double at = made(parameter, {kRows, shape[1]}), twice = made(parameter, {2 * kRows, shape[1]});
    return at + (twice - at) * static_cast<double>(shape[0] - kRows) / kRows;
  }

 private:
  double made(const Parameter& parameter, const std::vector<int64_t>& shape) {
    const auto key = std::make_pair(is_hidden_matrix(parameter), shape);
    const auto found = known_.find(key);
    if (found != known_.end()) return found->second;
    const auto optimizer = row_.function({{parameter.name, at::zeros(shape).requires_grad_()}}, options_);
    return known_[key] = static_cast<double>(optimizer->state_bytes());
  }
  const MethodRow<OptimizerFactory>& row_;
  const Options& options_;
  std::map<std::pair<bool, std::vector<int64_t>>, double> known_;
};

}  // namespace

int64_t kept_per_token(const nn::BlockSpec& b) {
  const int64_t queries = b.heads * b.head_dim, keys = b.kv_heads * b.head_dim;
  // Inputs and outputs of both norms; rotated queries and keys, values, what attention gives and its row sums; gate, up and what they make.
  return 4 * b.hidden + 2 * queries + 2 * keys + b.heads + 3 * b.intermediate;
}

CostEstimate estimate_cost(const nn::ModelSpec& spec, const Workload& work, const Cluster& cluster, const MethodRow<OptimizerFactory>& optimizer,
                           const Options& optimizer_options) {
  if (work.ranks < 1 || work.micro_batches < work.ranks)
    fail(ErrorKind::invalid_input, "a step's {} micro-batches cannot be shared by {} ranks", work.micro_batches, work.ranks);
  const std::vector<Parameter> parameters = parameters_of(spec);
  const double all = numbers_of(parameters);
  const bool shards = work.strategy != Strategy::ddp && work.ranks > 1, zero3 = work.strategy == Strategy::zero3 && work.ranks > 1;
  const bool keeps_shares = shards && work.strategy != Strategy::zero1, recompute = work.recompute || zero3;
  const std::vector<int> owners = owners_of(parameters, work.ranks);
  StateBytes state(optimizer, optimizer_options);
  std::vector<double> numbers(static_cast<size_t>(work.ranks)), states(static_cast<size_t>(work.ranks));
  std::map<int64_t, double> blocks;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const auto count = static_cast<double>(parameters[i].tensor.numel());
    const auto owner = static_cast<size_t>(owners[i]);
    numbers[owner] += count;
    states[owner] += state.of(parameters[i]);
    blocks[block_of(parameters[i].name)] += count;
  }
  const double outside = blocks[DataParallel::kOutside];
  double block = 0, again = 0;  // again: of weights that more than one block computes with
  const nn::Sharing sharing = nn::sharing_of(spec);
  for (const Parameter& parameter : parameters) {
    if (block_of(parameter.name) == DataParallel::kOutside) continue;
    const bool everywhere = sharing.one_mlp && parameter.name.find(".mlp.") != std::string::npos;
    again += static_cast<double>(parameter.tensor.numel()) * static_cast<double>((everywhere ? spec.blocks.size() : sharing.repeats) - 1);
  }
  for (const auto& [index, count] : blocks) block = index == DataParallel::kOutside ? block : std::max(block, count);
  const double share = *std::max_element(numbers.begin(), numbers.end());
  CostEstimate cost;
  cost.parameters = kFloat * (zero3 ? std::min(all, share + outside + block) : all);
  // The embedding's gradient is whole until the end of backward: the head's part of it comes first.
  cost.gradients = kFloat * (keeps_shares ? std::min(all, share + outside + block) : all);
  // One that steps in backward: the gradient of the head, which is a tied embedding's, lives all the while, and one of the others.
  if (optimizer.function({}, optimizer_options)->steps_in_backward()) {
    const auto head = static_cast<double>(spec.vocab * spec.hidden);
    double largest = spec.tied_embeddings ? 0 : head;
    for (const Parameter& parameter : parameters) {
      if (block_of(parameter.name) != DataParallel::kOutside) largest = std::max(largest, static_cast<double>(parameter.tensor.numel()));
    }
    cost.gradients = kFloat * (head + largest);
  }
  for (const double bytes : states) cost.optimizer = shards ? std::max(cost.optimizer, bytes) : cost.optimizer + bytes;
  const auto tokens = static_cast<double>(work.micro_batch_tokens);
  double kept = 0, most = 0, inputs = 0;
  for (const nn::BlockSpec& b : spec.blocks) {
    const auto of_block = static_cast<double>(kept_per_token(b));
    kept += of_block;
    // While a block's backward runs: gradients of what its MLP made, and of its input and output.
    most = std::max(most, (recompute ? of_block : 0) + static_cast<double>(3 * b.intermediate + 2 * b.hidden));
    inputs += static_cast<double>(b.hidden);
  }
  cost.activations = kFloat * tokens * ((recompute ? inputs : kept) + most + 3 * static_cast<double>(spec.hidden));
  cost.buffers = std::min(kLogitBytes, kFloat * tokens * static_cast<double>(spec.vocab)) + (work.ranks > 1 ? std::min(2 * kBucketBytes, kFloat * all) : 0);

  // Time.
  double attention = 0;
  for (const nn::BlockSpec& b : spec.blocks) {
    const int64_t seen = b.sliding_window > 0 ? std::min(b.sliding_window, work.sequence_tokens) : work.sequence_tokens;
    attention += 12.0 * static_cast<double>(b.heads * b.head_dim) * static_cast<double>(seen);
  }
  const double matrices = all + again - (spec.tied_embeddings ? 0 : static_cast<double>(spec.vocab * spec.hidden));
  const double rounds = std::ceil(static_cast<double>(work.micro_batches) / work.ranks);
  const double flops = tokens * (6 * matrices + attention);
  cost.compute_seconds = rounds * flops * (recompute ? 4.0 / 3 : 1) / cluster.flops;
  const double others = static_cast<double>(work.ranks - 1) / work.ranks, bytes = kFloat * all;
  // An all-reduce by a ring sends each part twice; a reduce to an owner, or a broadcast from one, once.
  const double reductions = keeps_shares ? rounds : 1;
  const double overlapped = others * bytes * (shards ? reductions : 2.0), late = shards && !zero3 ? others * bytes : zero3 ? 2 * rounds * others * bytes : 0;
  cost.sent_bytes = overlapped + late;
  const double messages = bytes / kBucketBytes * reductions + (zero3 ? 2 * rounds : shards ? 1 : 0) * static_cast<double>(parameters.size());
  const auto seconds_of = [&](double sent) { return cluster.bytes_per_second > 0 ? sent / cluster.bytes_per_second : 0; };
  // Gradients are summed while backward, two thirds of a step (of its last round), goes on.
  const double hidden = cost.compute_seconds / rounds * (keeps_shares ? rounds : 1) * 2 / 3;
  if (work.ranks > 1) cost.exposed_seconds = std::max(0.0, seconds_of(overlapped) - hidden) + seconds_of(late) + messages * cluster.latency;
  cost.tokens_per_second = static_cast<double>(work.micro_batches) * tokens / cost.seconds();
  return cost;
}

}  // namespace frugal::train
