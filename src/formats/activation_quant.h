// How a linear layer's input is quantized before the product: a property of the layer, as files state it.
#pragma once

#include <string_view>

namespace frugal::formats {

struct ActivationQuant {
  enum class Kind { none, per_token, per_tensor };
  Kind kind = Kind::none;
  int bits = 8;     // symmetric signed integers, codes in [-(2^(bits-1)-1), 2^(bits-1)-1]
  float scale = 0;  // per_tensor only: the static scale
  bool operator==(const ActivationQuant&) const = default;
};

}  // namespace frugal::formats
