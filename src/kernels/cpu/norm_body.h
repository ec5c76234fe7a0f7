// rms_norm and layer_norm: see norm.h.
#pragma once

namespace frugal::kernels::FRUGAL_ISA_NS {

// Sum of f(x) over a row, in 4 accumulators (one would wait for the latency of each add).
template <typename F>
FRUGAL_INLINE float sum_of(const float* x, int64_t columns, const F& f) {
  constexpr int L = Vec::kLanes;
  Vec sum[4] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + 4 * L <= columns; i += 4 * L) {
    for (int j = 0; j < 4; ++j) sum[j] = add(sum[j], f(load(x + i + j * L)));
  }
  for (; i + L <= columns; i += L) sum[0] = add(sum[0], f(load(x + i)));
  float tail = 0;
  if (i < columns) {
    float values[L];
    store(values, f(load_part(x + i, static_cast<int>(columns - i))));
    for (int64_t j = 0; j < columns - i; ++j) tail += values[j];
  }
  return reduce_add(add(add(sum[0], sum[1]), add(sum[2], sum[3]))) + tail;
}

inline void normalize(const NormArguments& a, const float* x, float* out, float mean, float inverse) {
  const Vec center = set1(mean), factor = set1(inverse), offset = set1(a.weight_offset);
  const auto apply = [&](Vec value, Vec weight, Vec bias) {
    const Vec y = mul(sub(value, center), factor);
    return a.bias != nullptr ? fma(y, weight, bias) : mul(y, weight);
  };
  for_lanes(
      a.columns,
      [&](int64_t i) {
        const Vec weight = a.weight != nullptr ? add(load(a.weight + i), offset) : set1(1.0f);
        store(out + i, apply(load(x + i), weight, a.bias != nullptr ? load(a.bias + i) : zero()));
      },
      [&](int64_t i, int n) {
        const Vec weight = a.weight != nullptr ? add(load_part(a.weight + i, n), offset) : set1(1.0f);
        store_part(out + i, apply(load_part(x + i, n), weight, a.bias != nullptr ? load_part(a.bias + i, n) : zero()), n);
      });
}

inline void rms_norm(const NormArguments& a, int64_t row_begin, int64_t row_end) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    const float* x = a.x + row * a.stride;
    const float squares = sum_of(x, a.columns, [](Vec v) { return mul(v, v); });
    normalize(a, x, a.out + row * a.out_stride, 0, 1.0f / __builtin_sqrtf(squares / static_cast<float>(a.columns) + a.eps));
  }
}

// With r = 1 / sqrt(mean(x^2) + eps), w = weight + offset and g the gradient: r * (g w) - x * r^3 * mean(g w x) by x, sum of g x r by w.
inline void rms_norm_backward(const NormGradientArguments& a, float* weight_gradient, int64_t row_begin, int64_t row_end) {
  constexpr int L = Vec::kLanes;
  const Vec offset = set1(a.weight_offset);
  for (int64_t row = row_begin; row < row_end; ++row) {
    const float *x = a.x + row * a.columns, *g = a.gradient + row * a.columns;
    float* out = a.x_gradient + row * a.columns;
    const auto count = static_cast<float>(a.columns);
    const float r = 1.0f / __builtin_sqrtf(sum_of(x, a.columns, [](Vec v) { return mul(v, v); }) / count + a.eps);
    Vec dots = zero();
    float tail = 0;
    for_lanes(
        a.columns, [&](int64_t i) { dots = fma(mul(load(g + i), add(load(a.weight + i), offset)), load(x + i), dots); },
        [&](int64_t i, int n) {
          float values[L];
          store(values, mul(mul(load_part(g + i, n), add(load_part(a.weight + i, n), offset)), load_part(x + i, n)));
          for (int j = 0; j < n; ++j) tail += values[j];
        });
    const Vec factor = set1(r), slope = set1(-(reduce_add(dots) + tail) / count * r * r * r);
    for_lanes(
        a.columns,
        [&](int64_t i) {
          const Vec gradient = load(g + i), value = load(x + i);
          store(out + i, fma(value, slope, mul(mul(gradient, add(load(a.weight + i), offset)), factor)));
          if (weight_gradient != nullptr) store(weight_gradient + i, fma(mul(gradient, value), factor, load(weight_gradient + i)));
        },
        [&](int64_t i, int n) {
          const Vec gradient = load_part(g + i, n), value = load_part(x + i, n);
          store_part(out + i, fma(value, slope, mul(mul(gradient, add(load_part(a.weight + i, n), offset)), factor)), n);
          if (weight_gradient != nullptr) store_part(weight_gradient + i, fma(mul(gradient, value), factor, load_part(weight_gradient + i, n)), n);
        });
  }
}

inline void layer_norm(const NormArguments& a, int64_t row_begin, int64_t row_end) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    const float* x = a.x + row * a.stride;
    const float mean = sum_of(x, a.columns, [](Vec v) { return v; }) / static_cast<float>(a.columns);
    const Vec center = set1(mean);
    const float squares = sum_of(x, a.columns, [&](Vec v) { return mul(sub(v, center), sub(v, center)); });
    normalize(a, x, a.out + row * a.out_stride, mean, 1.0f / __builtin_sqrtf(squares / static_cast<float>(a.columns) + a.eps));
  }
}

}  // namespace frugal::kernels::FRUGAL_ISA_NS
