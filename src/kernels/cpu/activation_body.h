// Gated activations and softmax: see activation.h.
#pragma once

namespace frugal::kernels::FRUGAL_ISA_NS {

FRUGAL_INLINE Vec silu(Vec x) { return div(x, add(set1(1.0f), exp(negate(x)))); }
// 0.5 (1 + tanh(u)) = 1 / (1 + exp(-2 u))
FRUGAL_INLINE Vec gelu_tanh(Vec x) {
  const Vec cubic = mul(mul(x, x), mul(x, set1(0.044715f)));
  return div(x, add(set1(1.0f), exp(mul(add(x, cubic), set1(-1.5957691216f)))));
}
FRUGAL_INLINE Vec gelu_erf(Vec x) { return mul(mul(x, set1(0.5f)), add(set1(1.0f), erf(mul(x, set1(0.70710678f))))); }
FRUGAL_INLINE Vec relu(Vec x) { return max(x, zero()); }

template <typename F>
FRUGAL_INLINE void gate_rows(const GateRows& rows, int64_t row_begin, int64_t row_end, const F& f) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    const float* gate = rows.gate + row * rows.gate_stride;
    float* out = rows.out + row * rows.out_stride;
    if (rows.up == nullptr) {
      map(gate, out, rows.columns, f);
      continue;
    }
    const float* up = rows.up + row * rows.up_stride;
    for_lanes(
        rows.columns, [&](int64_t i) { store(out + i, mul(f(load(gate + i)), load(up + i))); },
        [&](int64_t i, int n) { store_part(out + i, mul(f(load_part(gate + i, n)), load_part(up + i, n)), n); });
  }
}

inline void gated_activation(const GateRows& rows, GateKind kind, int64_t row_begin, int64_t row_end) {
  switch (kind) {
    case GateKind::silu: return gate_rows(rows, row_begin, row_end, [](Vec x) { return silu(x); });
    case GateKind::gelu_tanh: return gate_rows(rows, row_begin, row_end, [](Vec x) { return gelu_tanh(x); });
    case GateKind::gelu_erf: return gate_rows(rows, row_begin, row_end, [](Vec x) { return gelu_erf(x); });
    case GateKind::relu: return gate_rows(rows, row_begin, row_end, [](Vec x) { return relu(x); });
  }
}

// value = f(x), slope = f'(x).
struct ValueAndSlope {
  Vec value, slope;
};
FRUGAL_INLINE ValueAndSlope silu_slope(Vec x) {
  const Vec one = set1(1.0f), s = div(one, add(one, exp(negate(x))));
  return {mul(x, s), mul(s, fma(x, sub(one, s), one))};
}
// f = x s(u), s the logistic function, u = 1.5957... (x + 0.044715 x^3): f' = s + x s (1 - s) u'.
FRUGAL_INLINE ValueAndSlope gelu_tanh_slope(Vec x) {
  const Vec one = set1(1.0f), square = mul(x, x), factor = set1(1.5957691216f);
  const Vec u = mul(mul(x, fma(square, set1(0.044715f), one)), factor);
  const Vec s = div(one, add(one, exp(negate(u))));
  const Vec inner = mul(fma(square, set1(3 * 0.044715f), one), factor);
  return {mul(x, s), mul(s, fma(mul(x, sub(one, s)), inner, one))};
}

template <typename F>
FRUGAL_INLINE void gate_gradient_rows(const GateGradientRows& rows, int64_t row_begin, int64_t row_end, const F& f) {
  const int64_t begin = row_begin * rows.columns;
  const float *gate = rows.gate + begin, *up = rows.up + begin, *gradient = rows.gradient + begin;
  float *gate_gradient = rows.gate_gradient + begin, *up_gradient = rows.up_gradient + begin;
  for_lanes((row_end - row_begin) * rows.columns,
            [&](int64_t i) {
              const ValueAndSlope at = f(load(gate + i));
              const Vec g = load(gradient + i), other = load(up + i);
              store(gate_gradient + i, mul(mul(g, other), at.slope));
              store(up_gradient + i, mul(g, at.value));
            },
            [&](int64_t i, int n) {
              const ValueAndSlope at = f(load_part(gate + i, n));
              const Vec g = load_part(gradient + i, n), other = load_part(up + i, n);
              store_part(gate_gradient + i, mul(mul(g, other), at.slope), n);
              store_part(up_gradient + i, mul(g, at.value), n);
            });
}

inline void gated_activation_backward(const GateGradientRows& rows, GateKind kind, int64_t row_begin, int64_t row_end) {
  if (kind == GateKind::silu) return gate_gradient_rows(rows, row_begin, row_end, [](Vec x) { return silu_slope(x); });
  gate_gradient_rows(rows, row_begin, row_end, [](Vec x) { return gelu_tanh_slope(x); });
}

inline void exponential(const float* x, float* out, int64_t count) {
  map(x, out, count, [](Vec v) { return exp(v); });
}

inline float row_maximum(const float* x, int64_t columns) {
  const Vec lowest = set1(-__builtin_inff());
  Vec top = lowest;
  float rest = -__builtin_inff();
  for_lanes(
      columns, [&](int64_t i) { top = max(top, load(x + i)); },
      [&](int64_t i, int n) {
        for (int j = 0; j < n; ++j) rest = x[i + j] > rest ? x[i + j] : rest;
      });
  const float maximum = reduce_max(top);
  return maximum > rest ? maximum : rest;
}

// exp(x - maximum) to `out` (null: not kept); returns the sum, in double after every vector: 49,152 terms of 1 ulp do not add up.
inline double exponential_sum(const float* x, float* out, int64_t columns, float maximum) {
  const Vec top = set1(maximum);
  double sum = 0;
  for_lanes(
      columns,
      [&](int64_t i) {
        const Vec e = exp_of_nonpositive(sub(load(x + i), top));
        if (out != nullptr) store(out + i, e);
        sum += reduce_add_double(e);
      },
      [&](int64_t i, int n) {
        float values[Vec::kLanes];
        store(values, exp_of_nonpositive(sub(load_part(x + i, n), top)));
        for (int j = 0; j < n; ++j) {
          if (out != nullptr) out[i + j] = values[j];
          sum += values[j];
        }
      });
  return sum;
}

inline void softmax(const float* x, float* out, int64_t columns, int64_t row_begin, int64_t row_end) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    const float* in = x + row * columns;
    float* result = out + row * columns;
    const float maximum = row_maximum(in, columns);
    const bool empty = maximum == -__builtin_inff();
    const double sum = empty ? exponential_sum(in, result, columns, 0) : exponential_sum(in, result, columns, maximum);
    const Vec factor = set1(empty && sum == 0 ? 0.0f : static_cast<float>(1.0 / sum));
    map(result, result, columns, [&](Vec v) { return mul(v, factor); });
  }
}

inline void log_softmax(const float* x, float* out, int64_t columns, int64_t row_begin, int64_t row_end) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    const float* in = x + row * columns;
    const float maximum = row_maximum(in, columns);
    const bool empty = maximum == -__builtin_inff();
    // log of the sum in two floats, so that the difference is rounded about once.
    const double shift =
        empty ? exponential_sum(in, nullptr, columns, 0) : static_cast<double>(maximum) + __builtin_log(exponential_sum(in, nullptr, columns, maximum));
    const Vec high = set1(static_cast<float>(shift));
    const Vec low = set1(static_cast<float>(shift - static_cast<double>(static_cast<float>(shift))));
    map(in, out + row * columns, columns, [&](Vec v) { return sub(sub(v, high), low); });
  }
}

inline void to_f16(const float* values, uint16_t* halves, int64_t count) {
  for_lanes(
      count, [&](int64_t i) { store_f16_part(halves + i, load(values + i), Vec::kLanes); },
      [&](int64_t i, int n) { store_f16_part(halves + i, load_part(values + i, n), n); });
}

inline void from_f16(const uint16_t* halves, float* values, int64_t count) {
  for_lanes(
      count, [&](int64_t i) { store(values + i, load_f16(halves + i)); }, [&](int64_t i, int n) { store_part(values + i, load_f16_part(halves + i, n), n); });
}

}  // namespace frugal::kernels::FRUGAL_ISA_NS
