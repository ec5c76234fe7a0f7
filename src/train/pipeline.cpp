#include "train/pipeline.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "base/clock.h"
#include "base/error.h"
#include "ops/autocast.h"
#include "train/cross_entropy.h"

namespace frugal::train {

using at::Tensor;

std::vector<PipelinePass> one_forward_one_backward(int stage, int stages, size_t micro_batches) {
  FRUGAL_ASSERT(stage >= 0 && stage < stages);
  const size_t ahead = std::min(static_cast<size_t>(stages - 1 - stage), micro_batches);
  std::vector<PipelinePass> passes;
  for (size_t i = 0; i < ahead; ++i) passes.push_back({true, i});
  for (size_t i = ahead; i < micro_batches; ++i) {
    passes.push_back({true, i});
    passes.push_back({false, i - ahead});
  }
  for (size_t i = micro_batches - ahead; i < micro_batches; ++i) passes.push_back({false, i});
  return passes;
}

double bubble_fraction(int stages, int64_t micro_batches) { return static_cast<double>(stages - 1) / static_cast<double>(micro_batches + stages - 1); }

// A micro-batch between its forward pass and its backward pass.
struct PipelinedLanguageModeling::Flight {
  Tensor input;   // [tokens, hidden] from the stage before; undefined at the first one
  Tensor output;  // for the next stage; at the last one the loss
};

PipelinedLanguageModeling::PipelinedLanguageModeling(const nn::Model& model, const ModelParallel& stages, const data::Dataset& dataset,
                                                     const data::Dataset* held_out, LanguageModelingOptions options)
    : LanguageModeling(model, dataset, held_out, std::move(options)), stages_(stages) {}

Tensor PipelinedLanguageModeling::receive(at::IntArrayRef shape, int from) {
  const Stopwatch watch;
  const Tensor tensor = at::empty(shape);
  stages_.stages().receive(tensor, from);
  waited_ += watch.seconds();
  return tensor;
}

// The stage goes on while it is on its way.
void PipelinedLanguageModeling::send(const Tensor& tensor, int to) { sends_.push_back(stages_.stages().send(tensor.detach().contiguous(), to)); }

void PipelinedLanguageModeling::finish_sends() {
  for (const auto& each : sends_) each->wait();
  sends_.clear();
}

PipelinedLanguageModeling::Flight PipelinedLanguageModeling::forward(const data::Dataset& dataset, const MicroBatch& batch, double scale) {
  const TokenBatch tokens = token_batch(dataset, batch.examples);
  Flight flight;
  Tensor rows;
  if (stages_.embeds()) {
    rows = model_.embed(tokens.batch.tokens);
  } else {
    rows = flight.input = receive({std::ssize(tokens.batch.tokens), model_.spec.hidden}, stages_.stage() - 1);
    if (at::GradMode::is_enabled()) flight.input.requires_grad_();
  }
  rows = through_blocks(model_, rows, tokens.batch, options_.recompute, stages_.blocks().begin, stages_.blocks().end);
  if (stages_.has_head()) {
    flight.output = cross_entropy(model_, model_.final_norm.forward(rows), tokens.targets, scale);
  } else {
    send(rows, stages_.stage() + 1);
    flight.output = rows;
  }
  return flight;
}

void PipelinedLanguageModeling::backward(Flight& flight) {
  if (stages_.has_head())
    torch::autograd::backward({flight.output}, {});
  else
    torch::autograd::backward({flight.output}, {receive(flight.output.sizes(), stages_.stage() + 1)});
  if (!stages_.embeds()) send(flight.input.grad(), stages_.stage() - 1);
  flight = {};
}

double PipelinedLanguageModeling::accumulate_step(std::span<const MicroBatch* const> batches, double scale, std::span<const uint64_t> seeds) {
  const Stopwatch watch;
  waited_ = 0;
  const ops::Autocast autocast(options_.activations);
  std::vector<Flight> flights(batches.size());
  double loss = 0;
  for (const PipelinePass& pass : one_forward_one_backward(stages_.stage(), stages_.stages().size(), batches.size())) {
    Flight& flight = flights[pass.micro_batch];
    if (!pass.is_forward) {
      backward(flight);
      continue;
    }
    if (options_.seed_randomness) options_.seed_randomness(seeds[pass.micro_batch]);
    flight = forward(dataset_, *batches[pass.micro_batch], scale);
    if (stages_.has_head()) loss += flight.output.item<double>() / scale;
  }
  finish_sends();
  // What each stage knows: the loss at the last one; how long it computed, of the time that the slowest took.
  const int count = stages_.stages().size();
  const Tensor all = at::zeros({count, 3}, at::kDouble);
  const double seconds = watch.seconds(), mine[] = {loss, seconds - waited_, seconds};
  std::copy(std::begin(mine), std::end(mine), all.mutable_data_ptr<double>() + 3 * stages_.stage());
  stages_.stages().all_reduce(all)->wait();  // a row of each
  const double span = all.select(1, 2).max().item<double>() * count;
  seconds_ += span;
  idle_seconds_ += span - all.select(1, 1).sum().item<double>();
  return all[count - 1][0].item<double>();
}

double PipelinedLanguageModeling::accumulate(const MicroBatch& batch, double scale, uint64_t seed) {
  const MicroBatch* const one = &batch;
  return accumulate_step({&one, 1}, scale, {&seed, 1});
}

std::optional<double> PipelinedLanguageModeling::evaluate() {
  if (!held_out_) return {};
  const at::NoGradGuard no_grad;
  double sum = 0;
  int64_t targets = 0;
  for (const MicroBatch& batch : micro_batches(*held_out_, options_.batches, 0)) {
    if (batch.targets == 0) continue;
    const Flight flight = forward(*held_out_, batch, 1);
    if (stages_.has_head()) sum += flight.output.item<double>();
    targets += batch.targets;
  }
  finish_sends();
  if (targets == 0) return {};
  const Tensor all = at::full({1}, sum, at::kDouble);
  stages_.stages().all_reduce(all)->wait();
  return all.item<double>() / static_cast<double>(targets);
}

double PipelinedLanguageModeling::loss(const MicroBatch& batch, uint64_t seed) { return Objective::loss(batch, seed); }
void PipelinedLanguageModeling::accumulate_drawn(const MicroBatch& batch, double scale, uint64_t seed) { Objective::accumulate_drawn(batch, scale, seed); }

Json PipelinedLanguageModeling::metrics() {
  const double idle = std::exchange(idle_seconds_, 0), all = std::exchange(seconds_, 0);
  return all > 0 ? Json{{"pipeline/bubble", idle / all}} : Json::object();
}

}  // namespace frugal::train
