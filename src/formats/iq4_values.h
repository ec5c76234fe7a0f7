// The 16 values that the codes of IQ4_NL and IQ4_XS index; a fact of the format.
#pragma once

#include <cstdint>

namespace frugal::formats {

inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

}  // namespace frugal::formats
