// Rotary positions in place: see rope.h.
#pragma once

namespace frugal::kernels::FRUGAL_ISA_NS {

inline void rope_halves(const RopeArguments& a, int64_t row_begin, int64_t row_end) {
  const int64_t half = a.rotary_dim / 2;
  for (int64_t row = row_begin; row < row_end; ++row) {
    const float* cos = a.cos + a.positions[row] * half;
    const float* sin = a.sin + a.positions[row] * half;
    for (int64_t head = 0; head < a.heads; ++head) {
      float* x = a.x + row * a.stride + head * a.head_dim;
      for_lanes(
          half,
          [&](int64_t i) {
            const Vec first = load(x + i), second = load(x + half + i), c = load(cos + i), s = load(sin + i);
            store(x + i, sub(mul(first, c), mul(second, s)));
            store(x + half + i, add(mul(second, c), mul(first, s)));
          },
          [&](int64_t i, int n) {
            const Vec first = load_part(x + i, n), second = load_part(x + half + i, n);
            const Vec c = load_part(cos + i, n), s = load_part(sin + i, n);
            store_part(x + i, sub(mul(first, c), mul(second, s)), n);
            store_part(x + half + i, add(mul(second, c), mul(first, s)), n);
          });
    }
  }
}

inline void rope_interleaved(const RopeArguments& a, int64_t row_begin, int64_t row_end) {
  const int64_t half = a.rotary_dim / 2;
  for (int64_t row = row_begin; row < row_end; ++row) {
    const float* cos = a.cos + a.positions[row] * half;
    const float* sin = a.sin + a.positions[row] * half;
    for (int64_t head = 0; head < a.heads; ++head) {
      float* x = a.x + row * a.stride + head * a.head_dim;
      for (int64_t i = 0; i < half; ++i) {
        const float first = x[2 * i], second = x[2 * i + 1];
        x[2 * i] = first * cos[i] - second * sin[i];
        x[2 * i + 1] = second * cos[i] + first * sin[i];
      }
    }
  }
}

}  // namespace frugal::kernels::FRUGAL_ISA_NS
