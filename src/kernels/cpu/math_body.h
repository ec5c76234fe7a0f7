// Elementary functions on Vec.
#pragma once

namespace frugal::kernels::FRUGAL_ISA_NS {

// x = n ln 2 + r, |r| <= ln 2 / 2: exp(r) by a polynomial of degree 7 (coefficients of Cephes' expf, S. Moshier).
FRUGAL_INLINE Vec exp_of_rest(Vec x, Vec n) {
  // ln 2 in two parts; the first has 10 bits, so n times it is exact without a fused multiply-add too.
  const Vec r = fma(n, set1(2.12194440e-4f), fma(n, set1(-0.693359375f), x));
  Vec p = set1(1.9875691500e-4f);
  p = fma(p, r, set1(1.3981999507e-3f));
  p = fma(p, r, set1(8.3334519073e-3f));
  p = fma(p, r, set1(4.1665795894e-2f));
  p = fma(p, r, set1(1.6666665459e-1f));
  p = fma(p, r, set1(5.0000001201e-1f));
  return add(fma(mul(r, r), p, r), set1(1.0f));
}

// The result is scaled in two steps so that n = 128 does not overflow early. Error: see activation.h.
FRUGAL_INLINE Vec exp(Vec x) {
  const Vec clamped = min(max(x, set1(-88.0f)), set1(89.0f));
  const Vec n = round(mul(clamped, set1(1.44269504f)));
  const Vec half = round(mul(n, set1(0.5f)));
  const Vec y = mul(mul(exp_of_rest(clamped, n), power_of_two(half)), power_of_two(sub(n, half)));
  return select(unordered(x), x, select(less(x, set1(-87.33654f)), zero(), y));
}

// For x <= 0 and NaN, in half the operations: one power of two does, and below -87.7 it is 0.
FRUGAL_INLINE Vec exp_of_nonpositive(Vec x) {
  const Vec bounded = max(set1(-88.0f), x);  // the second where one is NaN
  const Vec n = round(mul(bounded, set1(1.44269504f)));
  return mul(exp_of_rest(bounded, n), power_of_two(n));
}

// Absolute error about 1e-7 (not relative: for small x use another form).
FRUGAL_INLINE Vec tanh(Vec x) {
  const Vec e = exp(mul(abs(x), set1(2.0f)));
  return copysign(sub(set1(1.0f), div(set1(2.0f), add(e, set1(1.0f)))), x);
}

// Abramowitz and Stegun 7.1.26: absolute error at most 1.5e-7.
FRUGAL_INLINE Vec erf(Vec x) {
  const Vec a = abs(x);
  const Vec t = div(set1(1.0f), fma(a, set1(0.3275911f), set1(1.0f)));
  Vec p = set1(1.061405429f);
  p = fma(p, t, set1(-1.453152027f));
  p = fma(p, t, set1(1.421413741f));
  p = fma(p, t, set1(-0.284496736f));
  p = fma(p, t, set1(0.254829592f));
  const Vec tail = mul(mul(p, t), exp(mul(a, mul(a, set1(-1.0f)))));
  return copysign(sub(set1(1.0f), tail), x);
}

FRUGAL_INLINE Vec negate(Vec x) { return mul(x, set1(-1.0f)); }

// Calls body(i, n) over [0, columns) with n == Vec::kLanes, then once with the rest.
template <typename Full, typename Part>
FRUGAL_INLINE void for_lanes(int64_t columns, const Full& full, const Part& part) {
  int64_t i = 0;
  for (; i + Vec::kLanes <= columns; i += Vec::kLanes) full(i);
  if (i < columns) part(i, static_cast<int>(columns - i));
}

// out[i] = f(x[i]); out may be x.
template <typename F>
FRUGAL_INLINE void map(const float* x, float* out, int64_t columns, const F& f) {
  for_lanes(
      columns, [&](int64_t i) { store(out + i, f(load(x + i))); }, [&](int64_t i, int n) { store_part(out + i, f(load_part(x + i, n)), n); });
}

}  // namespace frugal::kernels::FRUGAL_ISA_NS
