// Rows of plain types: one number per weight.
#pragma once

#include <cstddef>
#include <cstdint>

namespace frugal::formats {

enum class PlainType { f64, f32, f16, bf16, f8e4m3, f8e5m2, f8e8m0 };

template <PlainType Type>
void decode_plain(const std::byte* bytes, float* weights, int64_t count);
template <PlainType Type>
void encode_plain(const float* weights, const float* importance, std::byte* bytes, int64_t count);

}  // namespace frugal::formats
