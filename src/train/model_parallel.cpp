#include "train/model_parallel.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/json.h"
#include "train/clip.h"
#include "train/data_parallel.h"
#include "train/tensor_description.h"

namespace frugal::train {

using at::Tensor;

namespace {

constexpr const char* kEmbedding = "model.embed_tokens.weight";

// "exp_avg.model.norm.weight" is of "model.norm.weight".
std::string parameter_of(const std::string& state) { return state.substr(state.find('.') + 1); }

std::vector<int> ranks_where(int size, const std::function<bool(int)>& is_member) {
  std::vector<int> ranks;
  for (int rank = 0; rank < size; ++rank) {
    if (is_member(rank)) ranks.push_back(rank);
  }
  return ranks;
}

}  // namespace

void ModelParallel::check(const nn::ModelSpec& spec, ModelParallelSize size, int ranks) {
  if (ranks % size.ranks() != 0) {
    fail(ErrorKind::invalid_input, "tensor_parallel_size {} and pipeline_parallel_size {}: {} processes make one copy of the model, {} cannot be shared out so",
         size.tensor, size.pipeline, size.ranks(), ranks);
  }
  check_tensor_parallel(spec, size.tensor);
  const bool own_stream = std::ranges::any_of(
      spec.blocks, [](const nn::BlockSpec& block) { return block.norm_after_add || block.branch_scales || block.norm == nn::NormKind::none; });
  if (own_stream && size.ranks() > 1)
    fail(ErrorKind::unsupported, "{}: a {} model has a residual stream of its own, which is not tested in parts: strategy shares its micro-batches",
         size.tensor > 1 ? "tensor_parallel_size" : "pipeline_parallel_size", spec.family);
  if (std::ssize(spec.blocks) < size.pipeline)
    fail(ErrorKind::unsupported, "pipeline_parallel_size: {} blocks cannot be shared by {} stages", spec.blocks.size(), size.pipeline);
}

ModelParallel::ModelParallel(dist::ProcessGroup& world, ModelParallelSize size, nn::Model& model, std::vector<Parameter>& parameters)
    : world_(world), size_(size), model_(model), whole_model_(model), part_model_(model), whole_(parameters) {
  const int count = world.size(), copies = count / size.ranks();
  const auto tensor_of = [&](int rank) { return rank % size.tensor; };
  const auto copy_of = [&](int rank) { return rank / size.tensor % copies; };
  const auto stage_of = [&](int rank) { return rank / size.tensor / copies; };
  const int tensor = tensor_of(world.rank()), copy = copy_of(world.rank()), stage = stage_of(world.rank());
  const auto group_of = [&](const std::function<bool(int)>& is_member) { return world.subgroup(ranks_where(count, is_member)); };
  data_ = group_of([&](int r) { return tensor_of(r) == tensor && stage_of(r) == stage; });
  replica_ = group_of([&](int r) { return copy_of(r) == copy; });
  tensor_ = group_of([&](int r) { return copy_of(r) == copy && stage_of(r) == stage; });
  stages_ = group_of([&](int r) { return copy_of(r) == copy && tensor_of(r) == tensor; });
  blocks_ = part_of(std::ssize(model.blocks), stage, size.pipeline);
  const auto is_end = [&](int r) { return stage_of(r) == 0 || stage_of(r) == size.pipeline - 1; };
  if (is_staged() && model.spec.tied_embeddings && is_end(world.rank()))
    tied_ = group_of([&](int r) { return copy_of(r) == copy && tensor_of(r) == tensor && is_end(r); });
  if (size.tensor > 1) {
    cuts_ = tensor_parallel_cuts(model);
    model = tensor_parallel_model(model, *tensor_, blocks_, embeds(), has_head());
  }
  part_model_ = model;
  std::map<std::string, Tensor> all;
  model.for_each_tensor([&](const std::string& name, Tensor& tensor) { all[name] = tensor; });
  parameters.clear();
  for (const Parameter& whole : whole_) {
    const std::vector<int> stages = stages_of(whole.name);
    if (std::find(stages.begin(), stages.end(), stage) == stages.end()) continue;
    parameters.push_back(whole);
    part_[whole.name] = parameters.back().tensor = all.at(whole.name);
  }
  set_whole_here(false);
}

std::vector<int> stages_of(const std::string& name, const nn::ModelSpec& spec, int stages) {
  if (const int64_t block = block_of(name); block != DataParallel::kOutside) {
    for (int stage = 0; stage < stages; ++stage) {
      if (part_of(std::ssize(spec.blocks), stage, stages).holds(block)) return {stage};
    }
  }
  if (name != kEmbedding) return {stages - 1};
  return spec.tied_embeddings && stages > 1 ? std::vector{0, stages - 1} : std::vector{0};
}

bool ModelParallel::is_kept_by(int member, const std::string& name) const {
  return stages_of(name).front() == member / size_.tensor && (cuts_.contains(name) || member % size_.tensor == 0);
}

Tensor ModelParallel::piece_of(const Tensor& whole, const std::string& name, int member) const {
  const auto cut = cuts_.find(name);
  if (cut == cuts_.end() || whole.sizes() != find_whole(name).sizes()) return whole;
  const Range range = part_of(whole.size(cut->second), member % size_.tensor, size_.tensor);
  return whole.narrow(cut->second, range.begin, range.count());
}

const Tensor& ModelParallel::find_whole(const std::string& name) const {
  const auto found = std::find_if(whole_.begin(), whole_.end(), [&](const Parameter& parameter) { return parameter.name == name; });
  if (found == whole_.end()) fail(ErrorKind::invalid_input, "\"{}\" is no parameter of the model", printable(name));
  return found->tensor;
}

// Of what is no part of this rank's.
void ModelParallel::set_whole_here(bool here) {
  for (const Parameter& whole : whole_) {
    const auto part = part_.find(whole.name);
    if (part == part_.end() || !part->second.is_same(whole.tensor)) set_here(whole.tensor, here);
  }
}

void ModelParallel::sum_tied_gradient(const std::vector<Parameter>& parameters) const {
  if (!tied_) return;
  for (const Parameter& parameter : parameters) {
    if (parameter.name != kEmbedding) continue;
    const at::NoGradGuard no_grad;
    Tensor& gradient = parameter.tensor.mutable_grad();
    gradient = gradient.defined() ? gradient.contiguous() : at::zeros_like(parameter.tensor);
    tied_->all_reduce(gradient)->wait();
  }
}

double ModelParallel::gradient_norm(const std::vector<Parameter>& owned) const {
  std::vector<Parameter> counted;
  for (const Parameter& parameter : owned) {
    if (is_kept_by(replica_->rank(), parameter.name)) counted.push_back(parameter);
  }
  const double norm = train::gradient_norm(counted);
  const Tensor squares = at::full({1}, norm * norm, at::kDouble);
  replica_->all_reduce(squares)->wait();
  return std::sqrt(squares.item<double>());
}

void ModelParallel::come_to_leader() {
  const at::NoGradGuard no_grad;
  if (replica_->leads()) set_whole_here(true);
  for (const Parameter& whole : whole_) {
    for (int member = 0; member < replica_->size(); ++member) {
      if (!is_kept_by(member, whole.name)) continue;
      if (member == replica_->rank() && !replica_->leads()) replica_->send(part_.at(whole.name).detach().contiguous(), 0)->wait();
      if (!replica_->leads()) continue;
      Tensor place = piece_of(whole.tensor, whole.name, member);
      if (member == 0) {
        const Tensor& own = part_.at(whole.name);
        if (!own.is_same(whole.tensor)) place.copy_(own);
        continue;
      }
      const Tensor piece = at::empty(place.sizes());
      replica_->receive(piece, member);
      place.copy_(piece);
    }
  }
  if (replica_->leads()) model_ = whole_model_;
}

void ModelParallel::go_from_leader() {
  if (!replica_->leads()) return;
  model_ = part_model_;
  set_whole_here(false);
}

void ModelParallel::scatter() const {
  const at::NoGradGuard no_grad;
  for (const Parameter& whole : whole_) {
    const std::vector<int> stages = stages_of(whole.name);
    for (int member = 0; member < replica_->size(); ++member) {
      if (std::find(stages.begin(), stages.end(), member / size_.tensor) == stages.end()) continue;
      if (replica_->leads()) {
        const Tensor piece = piece_of(whole.tensor.detach(), whole.name, member).contiguous();
        Tensor own = member == 0 ? part_.at(whole.name) : Tensor();
        if (member > 0)
          replica_->send(piece, member)->wait();
        else if (!own.is_same(whole.tensor))
          own.copy_(piece);
      } else if (member == replica_->rank()) {
        replica_->receive(part_.at(whole.name).detach(), 0);
      }
    }
  }
}

ModelParallel::Tensors ModelParallel::gather_state(const Tensors& part) const {
  Json kept = Json::array();
  for (const auto& [name, tensor] : part) {
    if (is_kept_by(replica_->rank(), parameter_of(name))) kept.push_back(description(name, tensor));
  }
  Tensors all;
  const auto announcements = replica_->all_gather(kept.dump());
  for (int member = 0; member < replica_->size(); ++member) {
    for (const Json& each : parse_json(announcements[static_cast<size_t>(member)], "a rank's optimizer state")) {
      const auto state = each.at("name").get<std::string>();
      const std::string name = parameter_of(state);
      if (member == replica_->rank() && member > 0) replica_->send(part.at(state).contiguous(), 0)->wait();
      if (!replica_->leads()) continue;
      const Tensor piece = member == 0 ? part.at(state) : empty_of(each);
      if (member > 0) replica_->receive(piece, member);
      const Tensor& whole = find_whole(name);
      // A count is of the whole parameter, and so equal on all ranks.
      if (!cuts_.contains(name) || piece.sizes() != piece_of(at::empty(whole.sizes(), at::kMeta), name, member).sizes()) {
        all[state] = piece;
        continue;
      }
      if (!all.contains(state)) all[state] = at::empty(whole.sizes(), piece.options());
      piece_of(all[state], name, member).copy_(piece);
    }
  }
  return all;
}

ModelParallel::Tensors ModelParallel::scatter_state(const Tensors& whole) const {
  Tensors mine;
  Json sent = Json::array();
  if (replica_->leads()) {
    for (const auto& [state, tensor] : whole) {
      for (const int stage : stages_of(parameter_of(state))) {
        for (int member = stage * size_.tensor; member < (stage + 1) * size_.tensor; ++member) {
          sent.push_back(description(state, piece_of(tensor, parameter_of(state), member)));
          sent.back()["to"] = member;
        }
      }
    }
  }
  for (const Json& each : parse_json(replica_->all_gather(sent.dump())[0], "an optimizer's state")) {
    const auto state = each.at("name").get<std::string>();
    const int member = each.at("to").get<int>();
    const bool is_mine = member == replica_->rank();
    if (replica_->leads()) {
      const Tensor piece = piece_of(whole.at(state), parameter_of(state), member).contiguous();
      if (is_mine)
        mine[state] = piece;
      else
        replica_->send(piece, member)->wait();
    } else if (is_mine) {
      mine[state] = empty_of(each);
      replica_->receive(mine[state], 0);
    }
  }
  return mine;
}

}  // namespace frugal::train
