#include "distill/replay.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

namespace frugal::distill {
namespace {

constexpr double kThresholdStep = 0.1;

}  // namespace

AdaptiveReplay::AdaptiveReplay(int64_t capacity, int64_t longest, double threshold, double loss_eps)
    : capacity_(capacity),
      loss_eps_(loss_eps),
      tokens_(at::zeros({capacity, longest}, at::kInt)),
      lengths_(at::zeros({capacity, 2}, at::kLong)),
      counts_(at::zeros({2}, at::kLong)),
      progress_(at::tensor({threshold, -1.0}, at::kDouble)) {}

int64_t AdaptiveReplay::size() const { return std::min(capacity_, counts_[0].item<int64_t>()); }
double AdaptiveReplay::threshold() const { return progress_[0].item<double>(); }
bool AdaptiveReplay::knows_loss() const { return progress_[1].item<double>() >= 0; }
void AdaptiveReplay::set_loss(double loss) { progress_[1] = loss; }

RowSource AdaptiveReplay::source(double chance) const {
  const double share = threshold(), done = static_cast<double>(counts_[1].item<int64_t>() + 1) / static_cast<double>(total_steps_);
  if (chance >= share) return RowSource::data;
  return chance < share * (1 - done) || size() < capacity_ ? RowSource::student : RowSource::buffer;
}

std::vector<WrittenRow> AdaptiveReplay::draw(size_t count, Rng& rng) const {
  std::vector<int64_t> ids(static_cast<size_t>(size()));
  std::iota(ids.begin(), ids.end(), 0);
  count = std::min(count, ids.size());
  std::vector<WrittenRow> rows;
  const auto lengths = lengths_.accessor<int64_t, 2>();
  for (size_t i = 0; i < count; ++i) {
    std::swap(ids[i], ids[i + rng.below(ids.size() - i)]);
    const int32_t* const tokens = tokens_[ids[i]].const_data_ptr<int32_t>();
    rows.push_back({{tokens, tokens + lengths[ids[i]][0]}, static_cast<size_t>(lengths[ids[i]][1])});
  }
  return rows;
}

void AdaptiveReplay::add(const std::vector<WrittenRow>& rows) {
  std::ranges::copy_if(rows, std::back_inserter(fresh_), [](const WrittenRow& row) { return row.tokens.size() > row.prompt; });
}

// The gradients are there: nothing computes this step again.
Json AdaptiveReplay::add_gradients() {
  auto lengths = lengths_.accessor<int64_t, 2>();
  int64_t& written = *counts_.mutable_data_ptr<int64_t>();
  for (const WrittenRow& row : fresh_) {
    const int64_t place = written++ % capacity_;
    std::ranges::copy(row.tokens, tokens_[place].zero_().mutable_data_ptr<int32_t>());
    lengths[place][0] = std::ssize(row.tokens);
    lengths[place][1] = static_cast<int64_t>(row.prompt);
  }
  fresh_.clear();
  return {{"distillation/threshold", threshold()}, {"distillation/buffer", size()}};
}

void AdaptiveReplay::after_step(int64_t step) { counts_[1] = step + 1; }

void AdaptiveReplay::evaluated(double loss) {
  if (!knows_loss() || loss < progress_[1].item<double>() + loss_eps_) return;
  progress_[0] = std::min(1.0, threshold() + kThresholdStep);
  set_loss(loss);
}

void AdaptiveReplay::for_each_state(const std::function<void(const std::string& name, at::Tensor& state)>& visit) {
  visit("replay.tokens", tokens_);
  visit("replay.lengths", lengths_);
  visit("replay.counts", counts_);
  visit("replay.progress", progress_);
}

}  // namespace frugal::distill
