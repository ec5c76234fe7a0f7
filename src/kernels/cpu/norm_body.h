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
