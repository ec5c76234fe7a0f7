#include "train/data_parallel.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <ATen/native/Resize.h>

#include <charconv>
#include <cmath>

#include "base/error.h"
#include "train/clip.h"
#include "train/tensor_description.h"

namespace frugal::train {

using at::Tensor;

namespace {

Json announced(Optimizer& optimizer) {
  Json states = Json::array();
  optimizer.for_each_state([&](const std::string& name, Tensor& tensor) { states.push_back(description(name, tensor)); });
  return states;
}

}  // namespace

void set_here(const Tensor& tensor, bool here) { at::native::resize_bytes_cpu(tensor.storage().unsafeGetStorageImpl(), here ? tensor.nbytes() : 0); }

int64_t block_of(const std::string& name) {
  constexpr std::string_view kLayers = "layers.";
  const size_t at = name.find(kLayers);
  int64_t block = DataParallel::kOutside;
  if (at != std::string::npos) std::from_chars(name.data() + at + kLayers.size(), name.data() + name.size(), block);
  return block;
}

std::vector<int> owners_of(const std::vector<Parameter>& parameters, int ranks) {
  double all = 0, before = 0;
  for (const Parameter& parameter : parameters) all += static_cast<double>(parameter.tensor.numel());
  std::vector<int> owners;
  for (const Parameter& parameter : parameters) {
    const auto count = static_cast<double>(parameter.tensor.numel());
    owners.push_back(std::min(ranks - 1, static_cast<int>((before + count / 2) / all * ranks)));
    before += count;
  }
  return owners;
}

DataParallel::DataParallel(dist::ProcessGroup& group, Strategy strategy, const std::vector<Parameter>& parameters, ModelParallel* model)
    : group_(group),
      strategy_(strategy),
      parameters_(parameters),
      owners_(shards() ? owners_of(parameters, group.size()) : std::vector<int>()),
      model_(model),
      reducer_(group, parameters, owners_) {
  for (size_t i = 0; i < parameters.size(); ++i) members_[block_of(parameters[i].name)].push_back(i);
  broadcast_each([](size_t) { return 0; });
  if (!shards_parameters()) return;
  for (const auto& [block, members] : members_) go(block);
}

void DataParallel::take_leaders_parameters() const {
  if (model_ && group_.leads()) model_->scatter();
  if (!shards_parameters()) return broadcast_each([](size_t) { return 0; });
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (owners_[i] == 0) continue;
    if (group_.leads()) group_.send(parameters_[i].tensor, owners_[i])->wait();
    if (owners_[i] == group_.rank()) group_.receive(parameters_[i].tensor, 0);
  }
}

void DataParallel::come(int64_t block) {
  if (!shards_parameters()) return;
  const at::NoGradGuard no_grad;
  std::vector<std::unique_ptr<dist::Pending>> pending;
  for (const size_t i : members_[block]) {
    if (owners_[i] != group_.rank()) set_here(parameters_[i].tensor, true);
    pending.push_back(group_.broadcast(parameters_[i].tensor, owners_[i]));
  }
  for (const auto& each : pending) each->wait();
}

void DataParallel::go(int64_t block) {
  if (!shards_parameters()) return;
  for (const size_t i : members_[block]) {
    if (owners_[i] != group_.rank()) set_here(parameters_[i].tensor, false);
  }
}

void DataParallel::come_to_leader() {
  if (model_ && group_.leads()) model_->come_to_leader();
  if (!shards_parameters()) return;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (owners_[i] == 0) continue;
    if (owners_[i] == group_.rank()) group_.send(parameters_[i].tensor, 0)->wait();
    if (!leads()) continue;
    set_here(parameters_[i].tensor, true);
    group_.receive(parameters_[i].tensor, owners_[i]);
  }
}

void DataParallel::go_from_leader() {
  if (model_ && group_.leads()) model_->go_from_leader();
  if (leads() && shards_parameters()) {
    for (const auto& [block, members] : members_) go(block);
  }
}

std::vector<Parameter> DataParallel::owned() const {
  if (!shards()) return parameters_;
  std::vector<Parameter> owned;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (owners_[i] == group_.rank()) owned.push_back(parameters_[i]);
  }
  return owned;
}

void DataParallel::begin_round(bool last) {
  reduces_ = last || strategy_ == Strategy::zero2 || strategy_ == Strategy::zero3;
  come(kOutside);
  if (reduces_ && !is_staged()) reducer_.begin();
}

void DataParallel::end_round() {
  // Several micro-batches' gradients have added up: only now is each the last one.
  if (is_staged()) reducer_.begin();
  if (reduces_) reducer_.end();
  go(kOutside);
}

void DataParallel::put_gradients() {
  reducer_.put_gradients();
  if (model_) model_->sum_tied_gradient(parameters_);
}

double DataParallel::gradient_norm() const {
  const double norm = model_ ? model_->gradient_norm(parameters_) : train::gradient_norm(parameters_);
  if (!shards()) return norm;
  Tensor squares = at::full({1}, norm * norm, at::kDouble);
  group_.all_reduce(squares)->wait();
  return std::sqrt(squares.item<double>());
}

void DataParallel::share_parameters() const {
  if (shards() && !shards_parameters()) broadcast_each([&](size_t i) { return owners_[i]; });
}

void DataParallel::broadcast_each(const std::function<int(size_t)>& root) const {
  std::vector<std::unique_ptr<dist::Pending>> pending;
  for (size_t i = 0; i < parameters_.size(); ++i) pending.push_back(group_.broadcast(parameters_[i].tensor, root(i)));
  for (const auto& each : pending) each->wait();
}

std::map<std::string, Tensor> DataParallel::gather_state(Optimizer& optimizer) const {
  std::map<std::string, Tensor> all;
  const auto announcements = group_.all_gather(shards() ? announced(optimizer).dump() : "[]");
  if (group_.leads()) optimizer.for_each_state([&](const std::string& name, Tensor& tensor) { all[name] = tensor; });
  for (int rank = 1; rank < group_.size(); ++rank) {
    if (rank == group_.rank() && shards()) optimizer.for_each_state([&](const std::string&, Tensor& tensor) { group_.send(tensor.contiguous(), 0)->wait(); });
    if (!group_.leads()) continue;
    for (const Json& each : parse_json(announcements[static_cast<size_t>(rank)], "a rank's optimizer state")) {
      const Tensor tensor = empty_of(each);
      group_.receive(tensor, rank);
      all[each.at("name").get<std::string>()] = tensor;
    }
  }
  if (model_ && group_.leads()) all = model_->gather_state(all);
  return all;
}

void DataParallel::load_state(Optimizer& optimizer, const std::map<std::string, Tensor>& whole, const std::string& where) const {
  const std::map<std::string, Tensor> state = model_ && group_.leads() ? model_->scatter_state(whole) : whole;
  const auto announcements = group_.all_gather(announced(optimizer).dump());
  if (group_.leads()) {
    // Of ranks that shard, together all; else each has all.
    size_t count = 0;
    for (int rank = 0; rank < (shards() ? group_.size() : 1); ++rank) count += parse_json(announcements[static_cast<size_t>(rank)], where).size();
    if (count != state.size()) fail(ErrorKind::invalid_input, "{}: is of another run: {} optimizer states, here are {}", where, state.size(), count);
    for (int rank = 1; rank < group_.size(); ++rank) {
      for (const Json& each : parse_json(announcements[static_cast<size_t>(rank)], where)) {
        Tensor tensor = empty_of(each);
        copy_named(state, each.at("name").get<std::string>(), tensor, where);
        group_.send(tensor, rank)->wait();
      }
    }
    optimizer.for_each_state([&](const std::string& name, Tensor& tensor) { copy_named(state, name, tensor, where); });
    return;
  }
  const at::NoGradGuard no_grad;
  optimizer.for_each_state([&](const std::string&, Tensor& tensor) {
    const Tensor received = at::empty_like(tensor, at::MemoryFormat::Contiguous);
    group_.receive(received, 0);
    tensor.copy_(received);
  });
}

bool DataParallel::all_agree(bool here) const {
  Tensor against = at::full({1}, here ? 0 : 1, at::kLong);
  world().all_reduce(against)->wait();
  return against.item<int64_t>() == 0;
}

Json DataParallel::of_leader(const Json& value) const { return parse_json(world().all_gather(leads() ? value.dump() : "")[0], "what rank 0 says"); }

}  // namespace frugal::train
