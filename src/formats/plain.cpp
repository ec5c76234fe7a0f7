#include "formats/plain.h"

#include <cstring>

#include "formats/half.h"

namespace frugal::formats {

namespace {

template <PlainType Type>
struct Stored;
template <>
struct Stored<PlainType::f64> {
  using Number = double;
  static float decode(double value) { return static_cast<float>(value); }
  static double encode(float value) { return value; }
};
template <>
struct Stored<PlainType::f32> {
  using Number = float;
  static float decode(float value) { return value; }
  static float encode(float value) { return value; }
};
template <>
struct Stored<PlainType::f16> {
  using Number = uint16_t;
  static float decode(uint16_t value) { return f16_to_float(value); }
  static uint16_t encode(float value) { return float_to_f16(value); }
};
template <>
struct Stored<PlainType::bf16> {
  using Number = uint16_t;
  static float decode(uint16_t value) { return bf16_to_float(value); }
  static uint16_t encode(float value) { return float_to_bf16(value); }
};
template <>
struct Stored<PlainType::f8e4m3> {
  using Number = uint8_t;
  static float decode(uint8_t value) { return f8e4m3_to_float(value); }
  static uint8_t encode(float value) { return float_to_f8e4m3(value); }
};
template <>
struct Stored<PlainType::f8e5m2> {
  using Number = uint8_t;
  static float decode(uint8_t value) { return f8e5m2_to_float(value); }
  static uint8_t encode(float value) { return float_to_f8e5m2(value); }
};
template <>
struct Stored<PlainType::f8e8m0> {
  using Number = uint8_t;
  static float decode(uint8_t value) { return e8m0_to_float(value); }
};

}  // namespace

// memcpy: the bytes of a mapped file need not be aligned.
template <PlainType Type>
void decode_plain(const std::byte* bytes, float* weights, int64_t count) {
  using Number = typename Stored<Type>::Number;
  for (int64_t i = 0; i < count; ++i) {
    Number number;
    std::memcpy(&number, bytes + i * static_cast<int64_t>(sizeof(Number)), sizeof(Number));
    weights[i] = Stored<Type>::decode(number);
  }
}

template <PlainType Type>
void encode_plain(const float* weights, const float*, std::byte* bytes, int64_t count) {
  using Number = typename Stored<Type>::Number;
  for (int64_t i = 0; i < count; ++i) {
    const Number number = Stored<Type>::encode(weights[i]);
    std::memcpy(bytes + i * static_cast<int64_t>(sizeof(Number)), &number, sizeof(Number));
  }
}

#define FRUGAL_INSTANTIATE(Type)                                                  \
  template void decode_plain<PlainType::Type>(const std::byte*, float*, int64_t); \
  template void encode_plain<PlainType::Type>(const float*, const float*, std::byte*, int64_t)

FRUGAL_INSTANTIATE(f64);
FRUGAL_INSTANTIATE(f32);
FRUGAL_INSTANTIATE(f16);
FRUGAL_INSTANTIATE(bf16);
FRUGAL_INSTANTIATE(f8e4m3);
FRUGAL_INSTANTIATE(f8e5m2);
template void decode_plain<PlainType::f8e8m0>(const std::byte*, float*, int64_t);

}  // namespace frugal::formats
