// The functions of a table row, made from what a format's own file knows. Included by the files that instantiate them; the
// table sees the declarations only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "formats/blocks.h"

namespace frugal::formats {

template <typename Block>
void decode(const std::byte* bytes, float* weights, int64_t count);
template <typename Block>
void encode(const float* weights, const float* importance, std::byte* bytes, int64_t count);
template <typename Block>
void split(const std::byte* bytes, uint8_t* codes, float* scales, float* minimums, int64_t count);

}  // namespace frugal::formats
