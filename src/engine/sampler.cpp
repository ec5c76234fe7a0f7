#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace frugal::engine {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
using Candidate = Sampler::Candidate;

bool heavier(const Candidate& a, const Candidate& b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; }

bool penalties_on(const SamplingParams& p) { return p.repeat_last_n != 0 && (p.repeat_penalty != 1 || p.presence_penalty != 0 || p.frequency_penalty != 0); }
bool dry_on(const SamplingParams& p) { return p.dry_multiplier > 0 && p.dry_penalty_last_n != 0; }

// The last `n` tokens; all for -1.
std::span<const int32_t> window(const std::vector<int32_t>& history, int32_t n) {
  const size_t size = n < 0 ? history.size() : std::min(history.size(), static_cast<size_t>(n));
  return std::span(history).last(size);
}

}  // namespace

Sampler::Sampler(SamplingParams params, int64_t vocab_size, uint64_t seed)
    : params_(std::move(params)), vocab_size_(vocab_size), rng_(seed), mu_(2 * params_.mirostat_ent) {
  if (vocab_size <= 0) fail(ErrorKind::invalid_input, "a vocabulary of {} tokens", vocab_size);
  for (const auto& [id, bias] : params_.logit_bias) {
    if (id < 0 || id >= vocab_size) fail(ErrorKind::invalid_input, "logit-bias: token id {} is outside 0..{}", id, vocab_size - 1);
  }
  if (penalties_on(params_)) counts_.assign(static_cast<size_t>(vocab_size), 0);
  std::sort(params_.dry_breakers.begin(), params_.dry_breakers.end());
}

void Sampler::accept(int32_t id) {
  if (id < 0 || id >= vocab_size_) fail(ErrorKind::invalid_input, "token id {} is outside 0..{}", id, vocab_size_ - 1);
  if (!counts_.empty()) {
    ++counts_[static_cast<size_t>(id)];
    const auto limit = static_cast<size_t>(std::max(params_.repeat_last_n, 0));
    if (params_.repeat_last_n > 0 && history_.size() >= limit) --counts_[static_cast<size_t>(history_[history_.size() - limit])];
  }
  if (!counts_.empty() || dry_on(params_)) history_.push_back(id);
}

void Sampler::apply_bias(std::span<float> logits) const {
  for (const auto& [id, bias] : params_.logit_bias) logits[static_cast<size_t>(id)] += bias;
}

void Sampler::apply_penalties(std::span<float> logits) {
  if (counts_.empty()) return;
  std::vector<int32_t> tokens(window(history_, params_.repeat_last_n).begin(), window(history_, params_.repeat_last_n).end());
  std::sort(tokens.begin(), tokens.end());
  tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
  for (const int32_t id : tokens) {
    float& logit = logits[static_cast<size_t>(id)];
    logit = logit > 0 ? logit / params_.repeat_penalty : logit * params_.repeat_penalty;
    logit -= params_.presence_penalty + params_.frequency_penalty * static_cast<float>(counts_[static_cast<size_t>(id)]);
  }
}

// For every earlier place where the last m tokens stood, the token that followed there would make the repetition m + 1
// long: it loses multiplier * base^(m - allowed). Match lengths by the Z algorithm on the reversed history, linear time.
void Sampler::apply_dry(std::span<float> logits) const {
  if (!dry_on(params_)) return;
  const auto recent = window(history_, params_.dry_penalty_last_n);
  const std::vector<int32_t> reversed(recent.rbegin(), recent.rend());
  const size_t size = reversed.size();
  const auto breaks = [&](int32_t id) { return std::binary_search(params_.dry_breakers.begin(), params_.dry_breakers.end(), id); };
  const auto limit = static_cast<size_t>(std::find_if(reversed.begin(), reversed.end(), breaks) - reversed.begin());
  std::vector<size_t> z(size, 0);
  std::vector<std::pair<int32_t, size_t>> longest;  // token that would repeat, length of the match before it
  for (size_t i = 1, left = 0, right = 0; i < size; ++i) {
    if (i < right) z[i] = std::min(right - i, z[i - left]);
    while (i + z[i] < size && reversed[z[i]] == reversed[i + z[i]]) ++z[i];
    if (i + z[i] > right) left = i, right = i + z[i];
    const size_t length = std::min(z[i], limit);
    if (length > 0 && length >= static_cast<size_t>(params_.dry_allowed_length) && !breaks(reversed[i - 1])) longest.emplace_back(reversed[i - 1], length);
  }
  std::sort(longest.begin(), longest.end(), [](const auto& a, const auto& b) { return a.first != b.first ? a.first < b.first : a.second > b.second; });
  for (size_t i = 0; i < longest.size(); ++i) {
    if (i > 0 && longest[i].first == longest[i - 1].first) continue;
    const double exponent = static_cast<double>(longest[i].second) - params_.dry_allowed_length;
    const double penalty = params_.dry_multiplier * std::pow(static_cast<double>(params_.dry_base), exponent);
    logits[static_cast<size_t>(longest[i].first)] -= static_cast<float>(std::min(penalty, 1e30));
  }
}

double Sampler::softmax() {
  largest_ = kMinusInfinity;
  for (const Candidate& c : candidates_) largest_ = std::max(largest_, c.logit);
  double sum = 0;
  for (Candidate& c : candidates_) sum += c.weight = std::exp(c.logit - largest_);
  return sum;
}

// The candidates of the smallest keys (>= 0), until their weights sum to `target`; the others go, the order stays. One pass
// into buckets by key and a sort of the one bucket that the target falls into: linear, where sorting 262,144 candidates
// of a flat distribution costs 14 times more (71 against 5 ms on a busy machine).
void Sampler::keep_sum(const std::vector<float>& keys, double target) {
  constexpr size_t kBuckets = 4096;
  constexpr float kPerUnit = 128;  // keys are in nats: buckets of 1/128, the last one takes all beyond 32
  const auto bucket_of = [&](float key) { return static_cast<size_t>(std::min(key * kPerUnit, static_cast<float>(kBuckets - 1))); };
  std::vector<double> sums(kBuckets, 0);
  for (size_t i = 0; i < keys.size(); ++i) sums[bucket_of(keys[i])] += candidates_[i].weight;
  size_t edge = 0;
  double sum = 0;
  while (edge + 1 < kBuckets && sum + sums[edge] < target) sum += sums[edge++];
  std::vector<std::pair<float, size_t>> members;
  for (size_t i = 0; i < keys.size(); ++i) {
    if (bucket_of(keys[i]) == edge) members.emplace_back(keys[i], i);
  }
  if (members.empty()) return;  // rounding: all weights together fall short of the target
  std::sort(members.begin(), members.end());
  std::pair<float, size_t> last = {0, 0};
  for (size_t i = 0; i < members.size() && (i == 0 || sum < target); ++i) {
    last = members[i];
    sum += candidates_[last.second].weight;
  }
  size_t kept = 0;
  for (size_t i = 0; i < keys.size(); ++i) {
    if (std::pair(keys[i], i) <= last) candidates_[kept++] = candidates_[i];
  }
  candidates_.resize(std::max<size_t>(kept, 1));
}

void Sampler::keep_nucleus() {
  const double total = softmax();
  std::vector<float> keys;
  keys.reserve(candidates_.size());
  for (const Candidate& c : candidates_) keys.push_back(largest_ - c.logit);
  keep_sum(keys, params_.top_p * total);
}

void Sampler::keep_top_k(size_t k) {
  if (k >= candidates_.size()) return;
  ranking_ = candidates_;
  const auto end = ranking_.begin() + static_cast<std::ptrdiff_t>(k - 1);
  std::nth_element(ranking_.begin(), end, ranking_.end(), heavier);
  std::erase_if(candidates_, [last = *end](const Candidate& c) { return heavier(last, c); });  // the order stays
}

void Sampler::keep_above(float logit) {
  std::erase_if(candidates_, [&](const Candidate& c) { return c.logit < logit; });
}

double Sampler::entropy(double total) const {
  double sum = 0;
  for (const Candidate& c : candidates_) {
    const double p = c.weight / total;
    if (p > 0) sum -= p * std::log(p);
  }
  return sum;
}

void Sampler::keep_typical() {
  const double total = softmax();
  const double typical = entropy(total);
  std::vector<float> keys;
  keys.reserve(candidates_.size());
  // Surprise of a token: log(total) - (logit - largest).
  for (const Candidate& c : candidates_) keys.push_back(static_cast<float>(std::fabs(std::log(total) + largest_ - c.logit - typical)));
  keep_sum(keys, params_.typical_p * total);
}

// XTC: by chance, all tokens over the threshold go, except the least likely of them.
void Sampler::drop_top_choices() {
  if (params_.xtc_threshold > 0.5f || rng_.uniform() >= params_.xtc_probability) return;
  const double threshold = params_.xtc_threshold * softmax();
  const Candidate* last = nullptr;
  size_t likely = 0;
  for (const Candidate& c : candidates_) {
    if (c.weight < threshold) continue;
    ++likely;
    if (!last || heavier(*last, c)) last = &c;
  }
  if (likely < 2) return;
  const int32_t kept = last->id;
  std::erase_if(candidates_, [&](const Candidate& c) { return c.weight >= threshold && c.id != kept; });
}

void Sampler::scale_temperature() {
  float temperature = params_.temp;
  if (params_.dynatemp_range > 0 && candidates_.size() > 1) {
    const double total = softmax();
    const double share = std::clamp(entropy(total) / std::log(static_cast<double>(candidates_.size())), 0.0, 1.0);
    const float low = std::max(0.0f, params_.temp - params_.dynatemp_range), high = params_.temp + params_.dynatemp_range;
    temperature = low + (high - low) * static_cast<float>(std::pow(share, static_cast<double>(params_.dynatemp_exp)));
  }
  if (temperature == 1) return;
  if (temperature < 1e-6f) return keep_top_k(1);
  for (Candidate& c : candidates_) c.logit /= temperature;
}

void Sampler::apply(SamplerKind kind) {
  switch (kind) {
    case SamplerKind::penalties:
    case SamplerKind::dry: return;  // on the logits, before there are candidates
    case SamplerKind::top_k:
      if (params_.top_k > 0) keep_top_k(static_cast<size_t>(params_.top_k));
      return;
    case SamplerKind::top_p:
      if (params_.top_p < 1) keep_nucleus();
      return;
    case SamplerKind::min_p: {
      if (params_.min_p <= 0) return;
      const float largest = std::max_element(candidates_.begin(), candidates_.end(), [](const auto& a, const auto& b) { return a.logit < b.logit; })->logit;
      return keep_above(largest + std::log(params_.min_p));
    }
    case SamplerKind::top_n_sigma: {
      if (params_.top_n_sigma <= 0) return;
      double sum = 0, squares = 0;
      float largest = kMinusInfinity;
      for (const Candidate& c : candidates_) {
        sum += c.logit;
        largest = std::max(largest, c.logit);
      }
      const double mean = sum / static_cast<double>(candidates_.size());
      for (const Candidate& c : candidates_) squares += (c.logit - mean) * (c.logit - mean);
      const double deviation = std::sqrt(squares / static_cast<double>(candidates_.size()));
      return keep_above(static_cast<float>(largest - params_.top_n_sigma * deviation));
    }
    case SamplerKind::typical_p:
      if (params_.typical_p < 1) keep_typical();
      return;
    case SamplerKind::xtc:
      if (params_.xtc_probability > 0) drop_top_choices();
      return;
    case SamplerKind::temperature: return scale_temperature();
  }
}

int32_t Sampler::draw() {
  double rest = rng_.uniform() * softmax();
  drawn_ = candidates_.size() - 1;
  for (size_t i = 0; i < candidates_.size(); ++i) {
    rest -= candidates_[i].weight;
    if (rest < 0) {
      drawn_ = i;
      break;
    }
  }
  while (drawn_ > 0 && candidates_[drawn_].weight == 0) --drawn_;  // rounding never chooses an impossible token
  return candidates_[drawn_].id;
}

int32_t Sampler::mirostat() {
  const double total = softmax();
  if (params_.mirostat == 2) {
    // Tokens more surprising than mu bits go; the most likely one stays.
    const double least = std::min(total * std::exp2(-static_cast<double>(mu_)), 1.0);  // 1: the weight of the most likely
    std::erase_if(candidates_, [&](const Candidate& c) { return c.weight < least; });
  } else {
    // The exponent of Zipf's law from the head of the distribution, and from it the k of expected surprise mu.
    ranking_ = candidates_;
    const size_t head = std::min<size_t>(100, ranking_.size());
    std::partial_sort(ranking_.begin(), ranking_.begin() + static_cast<std::ptrdiff_t>(head), ranking_.end(), heavier);
    double products = 0, squares = 0;
    for (size_t i = 0; i + 1 < head && ranking_[i + 1].weight > 0; ++i) {
      const double t = std::log(static_cast<double>(i + 2) / static_cast<double>(i + 1));
      products += t * std::log(ranking_[i].weight / ranking_[i + 1].weight);
      squares += t * t;
    }
    const double s = squares > 0 ? products / squares : 1;
    const double epsilon = s - 1;
    const double k = std::pow(epsilon * std::pow(2.0, static_cast<double>(mu_)) / (1 - std::pow(static_cast<double>(vocab_size_), -epsilon)), 1 / s);
    const double limit = static_cast<double>(candidates_.size());
    keep_top_k(static_cast<size_t>(std::isfinite(k) ? std::clamp(std::floor(k), 1.0, limit) : limit));
  }
  const int32_t id = draw();
  double kept = 0;
  for (const Candidate& c : candidates_) kept += c.weight;
  mu_ -= params_.mirostat_lr * static_cast<float>(-std::log2(candidates_[drawn_].weight / kept) - params_.mirostat_ent);
  return id;
}

int32_t Sampler::sample(std::span<float> logits) {
  FRUGAL_ASSERT(static_cast<int64_t>(logits.size()) == vocab_size_);
  apply_bias(logits);
  for (const SamplerKind kind : params_.samplers) {
    if (kind == SamplerKind::penalties) apply_penalties(logits);
    if (kind == SamplerKind::dry) apply_dry(logits);
  }
  if (params_.temp == 0) {
    int32_t best = -1;
    for (size_t i = 0; i < logits.size(); ++i) {
      if (logits[i] > (best < 0 ? kMinusInfinity : logits[static_cast<size_t>(best)])) best = static_cast<int32_t>(i);
    }
    if (best < 0) fail(ErrorKind::internal, "no logit is left to choose from (all are -infinity or NaN)");
    return best;
  }
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    const float logit = std::min(logits[i], std::numeric_limits<float>::max());
    if (logit > kMinusInfinity) candidates_.push_back({static_cast<int32_t>(i), logit, 0});  // drops NaN too
  }
  if (candidates_.empty()) fail(ErrorKind::internal, "no logit is left to choose from (all are -infinity or NaN)");
  if (params_.mirostat > 0) {
    scale_temperature();
    return mirostat();
  }
  for (const SamplerKind kind : params_.samplers) apply(kind);
  return draw();
}

}  // namespace frugal::engine
