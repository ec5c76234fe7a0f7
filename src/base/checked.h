// Checked arithmetic for sizes that come from files and requests. Every product, sum and round-up of such a number
// goes through here, before any allocation. Throws Error{corrupt_file}; `what` names the quantity.
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/error.h"

namespace frugal {

template <std::unsigned_integral T>
T checked_add(T a, T b, std::string_view what) {
  T result;
  if (__builtin_add_overflow(a, b, &result)) fail(ErrorKind::corrupt_file, "{}: {} + {} overflows", what, a, b);
  return result;
}

template <std::unsigned_integral T>
T checked_mul(T a, T b, std::string_view what) {
  T result;
  if (__builtin_mul_overflow(a, b, &result)) fail(ErrorKind::corrupt_file, "{}: {} * {} overflows", what, a, b);
  return result;
}

// value rounded up to a multiple of `step` (step > 0).
template <std::unsigned_integral T>
T checked_round_up(T value, T step, std::string_view what) {
  if (step == 0) fail(ErrorKind::corrupt_file, "{}: rounding {} up to a multiple of 0", what, value);
  const T rest = value % step;
  return rest == 0 ? value : checked_add<T>(value, step - rest, what);
}

// Product of all dimensions; 1 for rank 0.
inline uint64_t checked_product(std::span<const int64_t> shape, std::string_view what) {
  uint64_t product = 1;
  for (const int64_t dim : shape) {
    if (dim < 0) fail(ErrorKind::corrupt_file, "{}: negative dimension {}", what, dim);
    product = checked_mul(product, static_cast<uint64_t>(dim), what);
  }
  return product;
}

}  // namespace frugal
