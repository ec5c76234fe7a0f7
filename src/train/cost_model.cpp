#include "train/cost_model.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "nn/sharing.h"
#include "train/new_model.h"
#include "train/per_parameter.h"
#include "train/tensor_parallel.h"

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

std::vector<Parameter> parameters_of_stage(const nn::ModelSpec& spec, ModelParallelSize size, int stage) {
  nn::ModelSpec part = spec;
  for (nn::BlockSpec& block : part.blocks) block = tensor_parallel_spec(block, size.tensor);
  part.vocab = (spec.vocab + size.tensor - 1) / size.tensor;
  std::vector<Parameter> parameters;
  for (Parameter& parameter : parameters_of(part)) {
    const std::vector<int> stages = stages_of(parameter.name, spec, size.pipeline);
    if (std::find(stages.begin(), stages.end(), stage) != stages.end()) parameters.push_back(std::move(parameter));
  }
  return parameters;
}

namespace {

double others(int ranks) { return static_cast<double>(ranks - 1) / ranks; }

// What of the estimate is a stage's.
struct StageCost {
  CostEstimate memory;
  double numbers = 0;  // of its parameters
  double again = 0;    // of weights that more than one block computes with
  double flops = 0;    // of a micro-batch
  size_t parameters = 0;
};

struct Estimator {
  const nn::ModelSpec& spec;
  const Workload& work;
  StateBytes state;
  bool in_backward;  // the optimizer steps as gradients come
  bool shards = work.strategy != Strategy::ddp && work.copies() > 1, zero3 = work.strategy == Strategy::zero3 && work.copies() > 1;
  bool keeps_shares = shards && work.strategy != Strategy::zero1, recompute = work.recompute || zero3;
  double tokens = static_cast<double>(work.micro_batch_tokens), rounds = std::ceil(static_cast<double>(work.micro_batches) / work.copies());

  void add_parameters(StageCost& stage, const std::vector<Parameter>& parameters) {
    const std::vector<int> owners = owners_of(parameters, work.copies());
    std::vector<double> numbers(static_cast<size_t>(work.copies())), states(static_cast<size_t>(work.copies()));
    std::map<int64_t, double> blocks;
    for (size_t i = 0; i < parameters.size(); ++i) {
      const auto count = static_cast<double>(parameters[i].tensor.numel());
      const auto owner = static_cast<size_t>(owners[i]);
      numbers[owner] += count;
      states[owner] += state.of(parameters[i]);
      blocks[block_of(parameters[i].name)] += count;
    }
    const double all = numbers_of(parameters), outside = blocks[DataParallel::kOutside];
    double block = 0;
    for (const auto& [index, count] : blocks) block = index == DataParallel::kOutside ? block : std::max(block, count);
    const double share = *std::max_element(numbers.begin(), numbers.end());
    stage.memory.parameters = kFloat * (zero3 ? std::min(all, share + outside + block) : all);
    // The embedding's gradient is whole until the end of backward: the head's part of it comes first.
    stage.memory.gradients = kFloat * (keeps_shares ? std::min(all, share + outside + block) : all);
    if (in_backward) {  // the gradient of the head, which is a tied embedding's, lives all the while, and one of the others
      const auto head = static_cast<double>(spec.vocab * spec.hidden);
      double largest = spec.tied_embeddings ? 0 : head;
      for (const Parameter& parameter : parameters) {
        if (block_of(parameter.name) != DataParallel::kOutside) largest = std::max(largest, static_cast<double>(parameter.tensor.numel()));
      }
      stage.memory.gradients = kFloat * (head + largest);
    }
    const nn::Sharing sharing = nn::sharing_of(spec);
    for (const Parameter& parameter : parameters) {
      if (block_of(parameter.name) == DataParallel::kOutside) continue;
      const bool everywhere = sharing.one_mlp && parameter.name.find(".mlp.") != std::string::npos;
      stage.again += static_cast<double>(parameter.tensor.numel()) * static_cast<double>((everywhere ? spec.blocks.size() : sharing.repeats) - 1);
    }
    for (const double bytes : states) stage.memory.optimizer = shards ? std::max(stage.memory.optimizer, bytes) : stage.memory.optimizer + bytes;
    stage.numbers = all;
    stage.parameters = parameters.size();
  }

  void add_blocks(StageCost& stage, Range range, bool has_head, double in_flight) {
    double kept = 0, most = 0, inputs = 0, attention = 0;
    for (int64_t i = range.begin; i < range.end; ++i) {
      const nn::BlockSpec b = tensor_parallel_spec(spec.blocks[static_cast<size_t>(i)], work.size.tensor);
      const auto of_block = static_cast<double>(kept_per_token(b));
      kept += of_block;
      // While a block's backward runs: gradients of what its MLP made, and of its input and output.
      most = std::max(most, (recompute ? of_block : 0) + static_cast<double>(3 * b.intermediate + 2 * b.hidden));
      inputs += static_cast<double>(b.hidden);
      const int64_t seen = b.sliding_window > 0 ? std::min(b.sliding_window, work.sequence_tokens) : work.sequence_tokens;
      attention += 12.0 * static_cast<double>(b.heads * b.head_dim) * static_cast<double>(seen);
    }
    stage.memory.activations = kFloat * tokens * (in_flight * (recompute ? inputs : kept) + most + 3 * static_cast<double>(spec.hidden));
    const double vocab = static_cast<double>(spec.vocab) / work.size.tensor;
    if (has_head) stage.memory.buffers = std::min(kLogitBytes, kFloat * tokens * vocab);
    if (work.copies() > 1) stage.memory.buffers += std::min(2 * kBucketBytes, kFloat * stage.numbers);
    // Looking rows up costs nothing; a tied embedding is the head's matrix.
    const double looked_up = range.begin == 0 && !(has_head && spec.tied_embeddings) ? vocab * static_cast<double>(spec.hidden) : 0;
    stage.flops = tokens * (6 * (stage.numbers + stage.again - looked_up) + attention) * (recompute ? 4.0 / 3 : 1);
  }

  StageCost stage_of(int index) {
    StageCost stage;
    add_parameters(stage, parameters_of_stage(spec, work.size, index));
    add_blocks(stage, part_of(std::ssize(spec.blocks), index, work.size.pipeline), index == work.size.pipeline - 1,
               std::min(rounds, static_cast<double>(work.size.pipeline - index)));
    return stage;
  }

  // Sums of the residual stream, which nothing hides: behind each half of a block, forward and backward, and at both ends; bytes and messages a step.
  std::pair<double, double> tensor_parallel_sums() const {
    if (work.size.tensor == 1) return {0, 0};
    const double blocks = std::ceil(static_cast<double>(spec.blocks.size()) / work.size.pipeline);
    const double sums = rounds * (blocks * (recompute ? 6 : 4) + 2);
    return {sums * 2 * others(work.size.tensor) * kFloat * tokens * static_cast<double>(spec.hidden), sums};
  }
};

}  // namespace

CostEstimate estimate_cost(const nn::ModelSpec& spec, const Workload& work, const Cluster& cluster, const MethodRow<OptimizerFactory>& optimizer,
                           const Options& optimizer_options) {
  if (work.ranks < 1) fail(ErrorKind::invalid_input, "there must be a rank, not {}", work.ranks);
  ModelParallel::check(spec, work.size, work.ranks);
  if (work.micro_batches < work.copies())
    fail(ErrorKind::invalid_input, "a step's {} micro-batches cannot be shared by {} ranks", work.micro_batches, work.copies());
  Estimator estimator{.spec = spec,
                      .work = work,
                      .state = StateBytes(optimizer, optimizer_options),
                      .in_backward = optimizer.function({}, optimizer_options)->steps_in_backward()};
  if (estimator.in_backward && work.ranks > 1)
    fail(ErrorKind::unsupported, "optimizer: {} moves each parameter before gradients of other ranks are there: one rank, not {}", optimizer.id, work.ranks);
  const int stages = work.size.pipeline;
  CostEstimate cost;
  double through = 0, slowest = 0, numbers = 0, parameters = 0;  // of a micro-batch, seconds; of the largest stage
  for (int index = 0; index < stages; ++index) {
    const StageCost stage = estimator.stage_of(index);
    if (stage.memory.bytes() > cost.bytes()) cost = stage.memory;
    through += stage.flops / cluster.flops;
    slowest = std::max(slowest, stage.flops / cluster.flops);
    numbers = std::max(numbers, stage.numbers);
    parameters = std::max(parameters, static_cast<double>(stage.parameters));
  }
  const double rounds = estimator.rounds;
  cost.compute_seconds = rounds * through / stages;  // of a stage in the mean
  cost.bubble_seconds = through + (rounds - 1) * slowest - cost.compute_seconds;
  const bool shards = estimator.shards, zero3 = estimator.zero3;
  const double away = others(work.copies()), bytes = kFloat * numbers;
  // An all-reduce by a ring sends each part twice; a reduce to an owner, or a broadcast from one, once.
  const double reductions = estimator.keeps_shares ? rounds : 1;
  const double overlapped = away * bytes * (shards ? reductions : 2.0), late = shards && !zero3 ? away * bytes : zero3 ? 2 * rounds * away * bytes : 0;
  const auto [sums, sum_messages] = estimator.tensor_parallel_sums();
  const double rows = kFloat * estimator.tokens * static_cast<double>(spec.hidden);  // from stage to stage
  const double tied = stages > 1 && spec.tied_embeddings ? kFloat * static_cast<double>(spec.vocab * spec.hidden) / work.size.tensor : 0;
  cost.sent_bytes = overlapped + late + sums + (stages > 1 ? rounds * rows : 0) + tied;
  const double reduced = work.copies() > 1 ? bytes / kBucketBytes * reductions + (zero3 ? 2 * rounds : shards ? 1 : 0) * parameters : 0;
  const double messages = reduced + sum_messages + 2 * (stages - 1);
  const auto seconds_of = [&](double sent) { return cluster.bytes_per_second > 0 ? sent / cluster.bytes_per_second : 0; };
  // Gradients are summed while backward, two thirds of a step (of its last round), goes on.
  const double hidden = cost.compute_seconds / rounds * (estimator.keeps_shares ? rounds : 1) * 2 / 3;
  if (work.ranks > 1) {
    cost.exposed_seconds =
        std::max(0.0, seconds_of(overlapped) - hidden) + seconds_of(late + sums + tied + 2 * (stages - 1) * rows) + messages * cluster.latency;
  }
  cost.tokens_per_second = static_cast<double>(work.micro_batches) * estimator.tokens / cost.seconds();
  return cost;
}

}  // namespace frugal::train
