#include "train/gradient_reducer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "base/error.h"

namespace frugal::train {

using at::Tensor;

namespace {
constexpr int64_t kFirstBucketBytes = 1 << 20;  // small, that the first sum begins early
constexpr size_t kInFlight = 2;                 // buckets: a network that is slower than backward may not fill the memory
}  // namespace

struct GradientReducer::Bucket {
  std::vector<size_t> members;
  int owner = -1;  // -1: all
  int64_t numel = 0;
  size_t missing = 0;  // members whose last gradient is not there
  Tensor flat;
  std::unique_ptr<dist::Pending> pending;

  // The members' gradients one after the other, which are then gone; zeros where there is none.
  Tensor take(const std::vector<Parameter>& parameters) const {
    const at::NoGradGuard no_grad;
    Tensor taken = at::empty({numel});
    int64_t first = 0;
    for (const size_t i : members) {
      const Tensor& parameter = parameters[i].tensor;
      Tensor part = taken.narrow(0, first, parameter.numel());
      if (const Tensor& gradient = parameter.grad(); gradient.defined())
        part.copy_(gradient.reshape(-1));
      else
        part.zero_();
      parameter.mutable_grad() = Tensor();
      first += parameter.numel();
    }
    return taken;
  }
  std::unique_ptr<dist::Pending> sum(dist::ProcessGroup& group, const Tensor& tensor) const {
    return owner < 0 ? group.all_reduce(tensor) : group.reduce(tensor, owner);
  }
};

GradientReducer::GradientReducer(dist::ProcessGroup& group, const std::vector<Parameter>& parameters, std::vector<int> owners, int64_t bucket_bytes)
    : group_(group),
      parameters_(parameters),
      bucket_of_(parameters.size()),
      expected_(parameters.size(), -1),
      count_(parameters.size()),
      hooks_(parameters, [this](size_t i) { gradient_is_there(i); }) {
  FRUGAL_ASSERT(owners.empty() || owners.size() == parameters.size());
  contributed_.resize(parameters.size());
  had_gradient_.resize(parameters.size());
  sums_.resize(parameters.size());
  for (size_t i = parameters.size(); i-- > 0;) {
    const int owner = owners.empty() ? -1 : owners[i];
    const int64_t limit = buckets_.size() <= 1 ? std::min(kFirstBucketBytes, bucket_bytes) : bucket_bytes;
    const int64_t bytes = parameters[i].tensor.numel() * static_cast<int64_t>(sizeof(float));
    if (buckets_.empty() || buckets_.back().owner != owner || buckets_.back().numel * static_cast<int64_t>(sizeof(float)) + bytes > limit) {
      buckets_.emplace_back();
      buckets_.back().owner = owner;
    }
    buckets_.back().members.push_back(i);
    buckets_.back().numel += parameters[i].tensor.numel();
    bucket_of_[i] = buckets_.size() - 1;
  }
}

GradientReducer::~GradientReducer() = default;

bool GradientReducer::is_mine(const Bucket& bucket) const { return bucket.owner < 0 || bucket.owner == group_.rank(); }

void GradientReducer::begin() {
  std::fill(count_.begin(), count_.end(), 0);
  std::fill(contributed_.begin(), contributed_.end(), 0.0F);
  next_ = 0;
  is_armed_ = true;
  has_begun_ = false;
  for (size_t i = 0; i < parameters_.size(); ++i) had_gradient_[i] = parameters_[i].tensor.grad().defined();
  for (Bucket& bucket : buckets_) {
    bucket.missing = static_cast<size_t>(std::count_if(bucket.members.begin(), bucket.members.end(), [&](size_t i) { return expected_[i] != 0; }));
  }
}

void GradientReducer::gradient_is_there(size_t parameter) {
  if (!is_armed_) return;
  if (!std::exchange(has_begun_, true)) find_gradients_of_forward(parameter);
  if (++count_[parameter] != std::abs(expected_[parameter])) return;
  --buckets_[bucket_of_[parameter]].missing;
  launch_ready();
}

// Before the first gradient of backward: a fused head (cross_entropy.h) has made its own by then, of which nothing else will tell.
void GradientReducer::find_gradients_of_forward(size_t first) {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (i == first || expected_[i] >= 0 || had_gradient_[i] || !parameters_[i].tensor.grad().defined()) continue;
    expected_[i] = 0;
    --buckets_[bucket_of_[i]].missing;
  }
}

void GradientReducer::launch_ready() {
  while (next_ < buckets_.size() && buckets_[next_].missing == 0) launch(buckets_[next_++]);
}

// Waits for its sum, of which only those who get it keep anything.
void GradientReducer::complete(Bucket& bucket) {
  if (!bucket.pending) return;
  bucket.pending->wait();
  bucket.pending.reset();
  if (!is_mine(bucket)) bucket.flat = Tensor();
}

void GradientReducer::launch(Bucket& bucket) {
  for (const size_t i : bucket.members) contributed_[i] = parameters_[i].tensor.grad().defined() ? 1.0F : 0.0F;
  bucket.flat = bucket.take(parameters_);
  bucket.pending = bucket.sum(group_, bucket.flat);
  if (next_ > kInFlight) complete(buckets_[next_ - 1 - kInFlight]);  // next_ is the one after this
}

void GradientReducer::add(Bucket& bucket, const Tensor& sums, const Tensor& contributions) {
  if (!is_mine(bucket)) return;
  const at::NoGradGuard no_grad;
  int64_t first = 0;
  for (const size_t i : bucket.members) {
    const Tensor& parameter = parameters_[i].tensor;
    const Tensor part = sums.narrow(0, first, parameter.numel()).view(parameter.sizes());
    first += parameter.numel();
    if (contributions.const_data_ptr<float>()[i] == 0) continue;
    if (sums_[i].defined())
      sums_[i].add_(part);
    else
      sums_[i] = part;
  }
}

void GradientReducer::end() {
  is_armed_ = false;
  while (next_ < buckets_.size()) launch(buckets_[next_++]);
  const auto count = static_cast<int64_t>(parameters_.size());
  Tensor known = at::zeros({2, count});  // ranks that have a gradient; ranks that have one which came late
  std::copy(contributed_.begin(), contributed_.end(), known.mutable_data_ptr<float>());
  for (int64_t i = 0; i < count; ++i) known.mutable_data_ptr<float>()[count + i] = parameters_[static_cast<size_t>(i)].tensor.grad().defined() ? 1.0F : 0.0F;
  group_.all_reduce(known)->wait();
  const Tensor present = known[0].contiguous(), late = known[1].contiguous();
  for (Bucket& bucket : buckets_) {
    complete(bucket);
    add(bucket, bucket.flat, present);
    bucket.flat = Tensor();
  }
  for (Bucket& bucket : buckets_) {
    if (std::none_of(bucket.members.begin(), bucket.members.end(), [&](size_t i) { return late.const_data_ptr<float>()[i] > 0; })) continue;
    const Tensor rest = bucket.take(parameters_);
    bucket.sum(group_, rest)->wait();
    add(bucket, rest, late);
  }
  if (std::any_of(count_.begin(), count_.end(), [](int each) { return each > 0; })) expected_ = count_;
}

void GradientReducer::put_gradients() {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    parameters_[i].tensor.mutable_grad() = sums_[i];
    sums_[i] = Tensor();
  }
}

}  // namespace frugal::train
