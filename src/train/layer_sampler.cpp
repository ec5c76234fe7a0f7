#include "train/layer_sampler.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/rng.h"
#include "train/data_parallel.h"

namespace frugal::train {

std::vector<int64_t> sampled_layers(const std::vector<int64_t>& blocks, const LayerSampling& sampling, int64_t step) {
  Rng rng(sampling.seed * 0x9E3779B97F4A7C15 + static_cast<uint64_t>(step / sampling.interval) + 1);
  std::vector<int64_t> layers = blocks;
  for (size_t i = 0; i < static_cast<size_t>(sampling.layers); ++i) std::swap(layers[i], layers[i + rng.below(layers.size() - i)]);  // the first of a shuffle
  layers.resize(static_cast<size_t>(sampling.layers));
  std::sort(layers.begin(), layers.end());
  return layers;
}

LayerSampler::LayerSampler(std::vector<Parameter> parameters, const LayerSampling& sampling, const MethodRow<OptimizerFactory>& row, const Options& options)
    : parameters_(std::move(parameters)), sampling_(sampling), row_(row), options_(options) {
  std::set<int64_t> blocks;
  for (const Parameter& parameter : parameters_) blocks.insert(block_of(parameter.name));
  blocks.erase(DataParallel::kOutside);
  blocks_.assign(blocks.begin(), blocks.end());
  if (sampling.layers < 1 || sampling.layers > std::ssize(blocks_))
    fail(ErrorKind::invalid_input, "activated_layers: {} of the model's {} blocks cannot train at once", sampling.layers, blocks_.size());
  if (row.id == "mezo") fail(ErrorKind::unsupported, "optimizer: mezo holds neither gradients nor state that frozen layers would save: choose another");
  if (row.id == "schedule-free")
    fail(ErrorKind::unsupported, "optimizer: schedule-free averages all steps of a parameter, whose state goes when its layer is frozen: choose another");
  prepare_step(0);
}

void LayerSampler::prepare_step(int64_t step) {
  std::vector<int64_t> layers = sampled_layers(blocks_, sampling_, step);
  if (layers == layers_ && optimizer_ && step % sampling_.interval != 0) return;
  layers_ = std::move(layers);
  // State of what trains always goes on; of blocks it begins anew, and the old is gone before the new is made.
  std::map<std::string, at::Tensor> kept;
  if (optimizer_) {
    optimizer_->for_each_state([&](const std::string& name, at::Tensor& state) {
      if (block_of(name) == DataParallel::kOutside) kept[name] = state;
    });
    optimizer_.reset();
  }
  std::vector<Parameter> trained;
  place_.assign(parameters_.size(), parameters_.size());
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const int64_t block = block_of(parameters_[i].name);
    const bool trains = block == DataParallel::kOutside || std::binary_search(layers_.begin(), layers_.end(), block);
    parameters_[i].tensor.set_requires_grad(trains);
    if (!trains) continue;
    place_[i] = trained.size();
    trained.push_back(parameters_[i]);
  }
  optimizer_ = row_.function(std::move(trained), options_);
  optimizer_->for_each_state([&](const std::string& name, at::Tensor& state) {
    if (const auto found = kept.find(name); found != kept.end()) state.copy_(found->second);
  });
}

}  // namespace frugal::train
