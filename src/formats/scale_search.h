// The searches that the encoders share: for N weights x with importances u, the scale (and minimum) that minimise
//   sum u (scale * code + minimum - x)^2   with code = the nearest one in its range.
// Both are the usual alternation: candidates for the step give codes, the codes give the optimal scale by weighted least
// squares in closed form, the best candidate is polished. The sums run under `omp simd` so that they vectorise.
#pragma once

#include <cmath>
#include <cstdint>

#include "formats/iq4_values.h"

namespace frugal::formats {

struct CodeRange {
  int low;
  int high;
};

struct Affine {
  float scale;
  float minimum;
};

// value to the nearest integer, halves away from zero, within [-limit, limit]; NaN becomes -limit.
inline int round_half_away(float value, float limit) {
  float clamped = value > -limit ? value : -limit;
  clamped = clamped < limit ? clamped : limit;
  const float magnitude = std::abs(clamped);
  int rounded = static_cast<int>(magnitude);
  rounded += magnitude - static_cast<float>(rounded) >= 0.5f ? 1 : 0;
  return clamped < 0.0f ? -rounded : rounded;
}

// The nearest code as a float; NaN becomes range.low.
inline float nearest_code(float position, float low, float high) {
  position = position > low ? position : low;
  position = position < high ? position : high;
  return static_cast<float>(static_cast<int>(position - low + 0.5f)) + low;
}

inline float inverse_of(float scale) { return std::abs(scale) > 1e-37f ? 1.0f / scale : 0.0f; }

// Codes less range.low, that is in [0, high - low].
template <int N>
void nearest_codes(const float* x, Affine affine, CodeRange range, uint8_t* codes) {
  const float inverse = inverse_of(affine.scale);
  const float low = static_cast<float>(range.low);
  const float high = static_cast<float>(range.high);
  for (int i = 0; i < N; ++i) codes[i] = static_cast<uint8_t>(static_cast<int>(nearest_code((x[i] - affine.minimum) * inverse, low, high) - low));
}

struct CodeSums {
  float q = 0;   // sum u code
  float qq = 0;  // sum u code^2
  float qx = 0;  // sum u code x
};

// Sums over the nearest codes of (x - minimum) * inverse.
template <int N>
CodeSums sums_of_codes(const float* x, const float* u, float minimum, float inverse, CodeRange range) {
  const float low = static_cast<float>(range.low);
  const float high = static_cast<float>(range.high);
  float q = 0.0f;
  float qq = 0.0f;
  float qx = 0.0f;
#pragma omp simd reduction(+ : q, qq, qx)
  for (int i = 0; i < N; ++i) {
    const float code = nearest_code((x[i] - minimum) * inverse, low, high);
    const float weighted = u[i] * code;
    q += weighted;
    qq += weighted * code;
    qx += weighted * x[i];
  }
  return {q, qq, qx};
}

// Scale alone (minimum 0), codes in `range` (low < 0 < high). The scale may be negative: then the longer side of the range
// serves the positive weights. Error = sum u x^2 - qx^2 / qq, so the candidate with the largest qx^2 / qq wins.
template <int N>
float fit_symmetric(const float* x, const float* u, CodeRange range) {
  float extreme = 0.0f;
  for (int i = 0; i < N; ++i) extreme = std::abs(x[i]) > std::abs(extreme) ? x[i] : extreme;
  if (!(std::abs(extreme) > 1e-30f) || !std::isfinite(extreme)) return 0.0f;
  double best_gain = -1.0;
  float best_scale = 0.0f;
  const auto try_inverse = [&](float inverse) {
    const CodeSums sums = sums_of_codes<N>(x, u, 0.0f, inverse, range);
    if (!(sums.qq > 0.0f)) return false;
    const double gain = static_cast<double>(sums.qx) * sums.qx / sums.qq;
    if (!(gain > best_gain)) return false;
    best_gain = gain;
    best_scale = sums.qx / sums.qq;
    return true;
  };
  // The extreme weight lies near `end`, for both signs of the scale. Coarse codes gain from clipping it a little. Fine ones gain
  // from luck: each candidate rounds the other weights differently, so they get more and wider ones (6 bits: 6 % less error).
  const bool fine = range.high > 16;
  const float spacing = fine ? 0.5f : 0.25f;
  for (const int end : {range.low, range.high}) {
    for (int step = fine ? -4 : -1; step <= (fine ? 8 : 5); ++step) {
      const float beyond = spacing * static_cast<float>(end < 0 ? -step : step);
      try_inverse((static_cast<float>(end) + beyond) / extreme);
    }
  }
  for (int round = 0; round < 4 && try_inverse(inverse_of(best_scale)); ++round) {}
  return best_scale;
}

// Scale >= 0 and minimum <= max_minimum (0 for formats that store it as a subtracted positive number; infinity: free), codes
// in [0, max_code].
template <int N>
Affine fit_affine(const float* x, const float* u, int max_code, float max_minimum) {
  float low = x[0];
  float high = x[0];
  double sum_u = 0.0;
  double sum_x = 0.0;
  for (int i = 0; i < N; ++i) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
    sum_u += u[i];
    sum_x += static_cast<double>(u[i]) * x[i];
  }
  low = low < max_minimum ? low : max_minimum;
  if (!std::isfinite(low) || !std::isfinite(high)) return {0.0f, 0.0f};
  if (!(high - low > 1e-30f)) return {0.0f, low};
  Affine best{(high - low) / static_cast<float>(max_code), low};
  if (!(sum_u > 0.0)) return best;
  double best_cost = 1e300;
  const auto try_codes = [&](float minimum, float inverse) {
    const CodeSums sums = sums_of_codes<N>(x, u, minimum, inverse, {0, max_code});
    const double q = sums.q;
    const double qq = sums.qq;
    const double qx = sums.qx;
    const double determinant = sum_u * qq - q * q;
    double scale = determinant > 0.0 ? (sum_u * qx - q * sum_x) / determinant : 0.0;
    double shift = determinant > 0.0 ? (qq * sum_x - q * qx) / determinant : sum_x / sum_u;
    if (shift > max_minimum) {
      shift = max_minimum;
      scale = qq > 0.0 ? (qx - shift * q) / qq : 0.0;
    }
    // The squared error less sum u x^2, which no candidate changes.
    const double cost = scale * scale * qq + shift * shift * sum_u + 2.0 * scale * shift * q - 2.0 * scale * qx - 2.0 * shift * sum_x;
    if (!(scale > 0.0) || !(cost < best_cost)) return false;
    best_cost = cost;
    best = {static_cast<float>(scale), static_cast<float>(shift)};
    return true;
  };
  constexpr int kSteps = 10;
  for (int step = 0; step <= kSteps; ++step) {
    const float steps = static_cast<float>(max_code) - 0.9f + 0.27f * static_cast<float>(step) * (max_code > 3 ? 1.0f : 0.6f);
    try_codes(low, steps / (high - low));
  }
  for (int round = 0; round < 6 && try_codes(best.minimum, inverse_of(best.scale)); ++round) {}
  return best;
}

// --- the 16 unequally spaced values of IQ4_NL and IQ4_XS ---

// Number of the value nearest to `position`, and that value. One comparison per midpoint: unlike a binary search it vectorises.
inline int nearest_iq4(float position) {
  int code = 0;
#pragma GCC unroll 15
  for (int k = 0; k < 15; ++k) {
    const float midpoint = 0.5f * static_cast<float>(kIq4Values[k] + kIq4Values[k + 1]);
    code += position > midpoint ? 1 : 0;
  }
  return code;
}

inline float nearest_iq4_value(float position) {
  float value = static_cast<float>(kIq4Values[0]);
#pragma GCC unroll 15
  for (int k = 0; k < 15; ++k) {
    const float midpoint = 0.5f * static_cast<float>(kIq4Values[k] + kIq4Values[k + 1]);
    value += position > midpoint ? static_cast<float>(kIq4Values[k + 1] - kIq4Values[k]) : 0.0f;
  }
  return value;
}

template <int N>
void nearest_iq4_codes(const float* x, float scale, uint8_t* codes) {
  const float inverse = inverse_of(scale);
  for (int i = 0; i < N; ++i) codes[i] = static_cast<uint8_t>(nearest_iq4(x[i] * inverse));
}

template <int N>
CodeSums sums_of_iq4(const float* x, const float* u, float inverse) {
  float qq = 0.0f;
  float qx = 0.0f;
#pragma omp simd reduction(+ : qq, qx)
  for (int i = 0; i < N; ++i) {
    const float value = nearest_iq4_value(x[i] * inverse);
    qq += u[i] * value * value;
    qx += u[i] * value * x[i];
  }
  return {0.0f, qq, qx};
}

template <int N>
float fit_iq4(const float* x, const float* u) {
  float extreme = 0.0f;
  for (int i = 0; i < N; ++i) extreme = std::abs(x[i]) > std::abs(extreme) ? x[i] : extreme;
  if (!(std::abs(extreme) > 1e-30f) || !std::isfinite(extreme)) return 0.0f;
  double best_gain = -1.0;
  float best_scale = 0.0f;
  const auto try_inverse = [&](float inverse) {
    const CodeSums sums = sums_of_iq4<N>(x, u, inverse);
    if (!(sums.qq > 0.0f)) return false;
    const double gain = static_cast<double>(sums.qx) * sums.qx / sums.qq;
    if (!(gain > best_gain)) return false;
    best_gain = gain;
    best_scale = sums.qx / sums.qq;
    return true;
  };
  for (const float end : {-127.0f, 113.0f}) {
    for (int step = -1; step <= 5; ++step) try_inverse(end * (1.0f + 0.05f * static_cast<float>(step)) / extreme);
  }
  for (int round = 0; round < 4 && try_inverse(inverse_of(best_scale)); ++round) {}
  return best_scale;
}

}  // namespace frugal::formats
