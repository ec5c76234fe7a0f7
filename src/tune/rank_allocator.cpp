#include "tune/rank_allocator.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "base/error.h"

namespace frugal::tune {

using at::Tensor;

RankAllocator::RankAllocator(std::vector<Triplets> modules, io::PeftConfig::RankBudget budget)
    : modules_(std::move(modules)), budget_(budget), allotted_(at::zeros({1}, at::kLong)) {
  const auto score = [](const Tensor& tensor) { return Score{at::zeros(tensor.sizes()), at::zeros(tensor.sizes())}; };
  for (const Triplets& m : modules_) scores_.push_back({score(m.a), score(m.b), score(m.e), at::ones({m.e.size(0)}, at::kByte)});
}

void RankAllocator::begin(int64_t total_steps) {
  budget_.total_step = total_steps;
  if (budget_.tinit >= total_steps - budget_.tfinal) {
    fail(ErrorKind::invalid_input, "adalora: tinit {} and tfinal {} leave none of the run's {} steps to allot ranks in", budget_.tinit, budget_.tfinal,
         total_steps);
  }
}

// Of weight * mean over all A and B of |P P^T - 1| (Frobenius): weight / count * 2 (P P^T - 1) P / |P P^T - 1|.
Json RankAllocator::add_gradients() {
  const at::NoGradGuard no_grad;
  double sum = 0;
  const double weight = budget_.orth_reg_weight, count = 2.0 * static_cast<double>(modules_.size());
  const auto add = [&](const Tensor& tensor, bool columns) {
    const Tensor rows = columns ? tensor.t() : tensor;
    const Tensor excess = at::matmul(rows, rows.t()) - at::eye(rows.size(0));
    const double norm = excess.norm().item<double>();
    sum += norm;
    if (norm == 0 || weight == 0) return;
    const Tensor gradient = at::matmul(excess, rows) * (2 * weight / count / norm);
    Tensor& grad = tensor.mutable_grad();
    const Tensor own = columns ? gradient.t().contiguous() : gradient;
    grad = grad.defined() ? grad + own : own;
  };
  for (const Triplets& m : modules_) {
    add(m.a, false);
    add(m.b, true);
  }
  return {{"adalora/orthogonality", sum / count}};
}

int64_t RankAllocator::budget_at(int64_t step) const {
  const auto modules = std::ssize(modules_);
  const int64_t all = modules * modules_.at(0).e.size(0), target = modules * budget_.target_r;
  if (step <= budget_.tinit) return all;
  if (step > budget_.total_step - budget_.tfinal) return target;
  const double left = 1 - static_cast<double>(step - budget_.tinit) / static_cast<double>(budget_.total_step - budget_.tfinal - budget_.tinit);
  return static_cast<int64_t>(static_cast<double>(all - target) * (left * left * left) + static_cast<double>(target));
}

void RankAllocator::after_step(int64_t step) {
  const at::NoGradGuard no_grad;
  const int64_t last = budget_.total_step - budget_.tfinal;
  if (step > last) return mask_dropped();
  if (step < last) {
    const auto update = [&](Score& score, const Tensor& tensor) {
      const Tensor importance = (tensor * tensor.grad()).abs();
      score.sensitivity = budget_.beta1 * score.sensitivity + (1 - budget_.beta1) * importance;
      score.uncertainty = budget_.beta2 * score.uncertainty + (1 - budget_.beta2) * (importance - score.sensitivity).abs();
    };
    for (size_t i = 0; i < modules_.size(); ++i) {
      update(scores_[i].a, modules_[i].a);
      update(scores_[i].b, modules_[i].b);
      update(scores_[i].e, modules_[i].e);
    }
    if (step <= budget_.tinit || step % budget_.delta_t != 0) return;
  }
  mask_to(budget_at(step));
}

// Of all modules' ranks so many keep their singular value, those of the largest scores (equations 7 to 9).
void RankAllocator::mask_to(int64_t budget) {
  std::vector<Tensor> scores;
  for (const Scores& s : scores_) {
    const auto of = [](const Score& score) { return score.sensitivity * score.uncertainty; };
    scores.push_back(of(s.e).flatten() + (of(s.a).mean({1}) + of(s.b).mean({0})));
  }
  const Tensor all = at::cat(scores);
  const int64_t dropped = all.size(0) - budget;
  if (dropped <= 0) return;
  const Tensor threshold = std::get<0>(at::kthvalue(all, dropped));
  for (size_t i = 0; i < modules_.size(); ++i) scores_[i].kept = (scores[i] > threshold).to(at::kByte);
  allotted_.fill_(1);
  mask_dropped();
}

void RankAllocator::mask_dropped() {
  for (size_t i = 0; i < modules_.size(); ++i) modules_[i].e.masked_fill_(scores_[i].kept.eq(0).unsqueeze(1), 0);
}

void RankAllocator::for_each_state(const std::function<void(const std::string& name, Tensor& state)>& visit) {
  visit("allotted", allotted_);
  for (size_t i = 0; i < modules_.size(); ++i) {
    const std::string& module = modules_[i].module;
    for (const auto& [part, score] : {std::pair{".lora_A", &scores_[i].a}, {".lora_B", &scores_[i].b}, {".lora_E", &scores_[i].e}}) {
      visit("exp_avg_ipt." + module + part, score->sensitivity);
      visit("exp_avg_unc." + module + part, score->uncertainty);
    }
    visit("kept." + module, scores_[i].kept);
  }
}

void RankAllocator::describe(io::PeftConfig& config) const {
  config.budget = budget_;
  config.kept_ranks.clear();
  if (allotted_.item<int64_t>() == 0) return;
  for (size_t i = 0; i < modules_.size(); ++i) {
    const uint8_t* const kept = scores_[i].kept.const_data_ptr<uint8_t>();
    config.kept_ranks.emplace_back(modules_[i].module + ".lora_E", std::vector<bool>(kept, kept + scores_[i].kept.numel()));
  }
}

Tensor kept_ranks(const io::PeftConfig& config, const std::string& name, const Tensor& tensor) {
  if (config.type != io::PeftType::adalora) return tensor;
  const std::string key = name.substr(0, name.rfind('.')) + ".lora_E";
  const auto found = std::ranges::find(config.kept_ranks, key, &std::pair<std::string, std::vector<bool>>::first);
  if (found == config.kept_ranks.end()) return tensor;
  std::vector<int64_t> kept;
  for (size_t i = 0; i < found->second.size(); ++i) {
    if (found->second[i]) kept.push_back(static_cast<int64_t>(i));
  }
  const int64_t dim = name.ends_with(".lora_B") ? 1 : 0;
  return tensor.size(dim) == std::ssize(kept) ? tensor : tensor.detach().index_select(dim, at::tensor(kept, at::kLong));
}

}  // namespace frugal::tune
