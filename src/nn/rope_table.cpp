#include "nn/rope_table.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <mutex>
#include <numbers>

#include "base/error.h"

namespace frugal::nn {
namespace {

double mscale_of(double factor, double mscale) { return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; }

void scale_llama3(const RopeSpec& spec, std::vector<double>& inverse) {
  const auto original = static_cast<double>(spec.original_context);
  for (double& frequency : inverse) {
    const double wavelength = 2 * std::numbers::pi / frequency;
    const double scaled = frequency / spec.factor;
    if (wavelength > original / spec.low_frequency_factor) {
      frequency = scaled;
    } else if (wavelength >= original / spec.high_frequency_factor) {
      const double smooth = (original / wavelength - spec.low_frequency_factor) / (spec.high_frequency_factor - spec.low_frequency_factor);
      frequency = (1 - smooth) * scaled + smooth * frequency;
    }
  }
}

void scale_yarn(const RopeSpec& spec, std::vector<double>& inverse) {
  const auto dim = static_cast<double>(spec.rotary_dim);
  const auto correction = [&](double rotations) {
    return dim * std::log(static_cast<double>(spec.original_context) / (rotations * 2 * std::numbers::pi)) / (2 * std::log(spec.theta));
  };
  double low = correction(spec.beta_fast), high = correction(spec.beta_slow);
  if (spec.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < inverse.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    inverse[i] = inverse[i] / spec.factor * ramp + inverse[i] * (1 - ramp);
  }
}

double attention_factor_of(const RopeSpec& spec) {
  if (spec.attention_factor > 0) return spec.attention_factor;
  if (spec.scaling == RopeScaling::yarn) {
    if (spec.mscale > 0 && spec.mscale_all_dim > 0) return mscale_of(spec.factor, spec.mscale) / mscale_of(spec.factor, spec.mscale_all_dim);
    return mscale_of(spec.factor, 1);
  }
  if (spec.scaling == RopeScaling::longrope && spec.factor > 1) {
    return std::sqrt(1 + std::log(spec.factor) / std::log(static_cast<double>(spec.original_context)));
  }
  return 1;
}

// What the frequencies depend on besides the spec: nothing, the length (dynamic), or which factor list is used (longrope).
int64_t regime_of(const RopeSpec& spec, int64_t length) {
  if (spec.scaling == RopeScaling::dynamic) return std::max(length, spec.original_context);
  if (spec.scaling == RopeScaling::longrope) return length > spec.original_context;
  return 0;
}

}  // namespace

RopeFrequencies rope_frequencies(const RopeSpec& spec, int64_t length) {
  FRUGAL_ASSERT(spec.rotary_dim > 0 && spec.rotary_dim % 2 == 0);
  double theta = spec.theta;
  if (spec.scaling == RopeScaling::dynamic) {
    const double ratio = static_cast<double>(std::max(length, spec.original_context)) / static_cast<double>(spec.original_context);
    const auto dim = static_cast<double>(spec.rotary_dim);
    theta *= std::pow(spec.factor * ratio - (spec.factor - 1), dim / (dim - 2));
  }
  std::vector<double> inverse(static_cast<size_t>(spec.rotary_dim / 2));
  for (size_t i = 0; i < inverse.size(); ++i) inverse[i] = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(spec.rotary_dim));
  switch (spec.scaling) {
    case RopeScaling::none:
    case RopeScaling::dynamic: break;
    case RopeScaling::linear:
      for (double& frequency : inverse) frequency /= spec.factor;
      break;
    case RopeScaling::llama3: scale_llama3(spec, inverse); break;
    case RopeScaling::yarn: scale_yarn(spec, inverse); break;
    case RopeScaling::longrope: {
      const std::vector<double>& factors = length > spec.original_context ? spec.long_factors : spec.short_factors;
      FRUGAL_ASSERT(factors.size() == inverse.size());
      for (size_t i = 0; i < inverse.size(); ++i) inverse[i] /= factors[i];
      break;
    }
  }
  return {{inverse.begin(), inverse.end()}, attention_factor_of(spec)};
}

void RopeTable::prepare(int64_t length) {
  const int64_t regime = regime_of(spec_, length);
  if (cos_.defined() && regime == regime_ && cos_.size(0) >= length) return;
  // The tables outlive the call: they must be ordinary tensors even when this runs inside an InferenceMode.
  const c10::InferenceMode ordinary(false);
  const at::NoGradGuard no_grad;
  const RopeFrequencies frequencies = rope_frequencies(spec_, length);
  const int64_t rows = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(length, 256))));
  const at::Tensor inverse = at::tensor(at::ArrayRef<float>(frequencies.inverse));
  const at::Tensor angles = at::arange(rows, at::kFloat).unsqueeze(1) * inverse.unsqueeze(0);
  cos_ = angles.cos() * frequencies.attention_factor;
  sin_ = angles.sin() * frequencies.attention_factor;
  regime_ = regime;
}

std::shared_ptr<RopeTable> shared_rope_table(const RopeSpec& spec) {
  // A model has one table or two. Kept between calls: to compute one takes as long as a layer.
  constexpr size_t kKept = 8;
  static std::mutex mutex;
  static std::vector<std::shared_ptr<RopeTable>> tables;
  const std::lock_guard lock(mutex);
  for (const auto& table : tables) {
    if (table->spec() == spec) return table;
  }
  if (tables.size() == kKept) tables.erase(tables.begin());
  tables.push_back(std::make_shared<RopeTable>(spec));
  return tables.back();
}

}  // namespace frugal::nn
