// A tensor as it is announced to another rank, which makes room for it.
#pragma once

#include <ATen/ATen.h>

#include <string>
#include <vector>

#include "base/json.h"

namespace frugal::train {

inline Json description(const std::string& name, const at::Tensor& tensor) {
  return {{"name", name}, {"shape", tensor.sizes().vec()}, {"type", static_cast<int>(tensor.scalar_type())}};
}

inline at::Tensor empty_of(const Json& description) {
  return at::empty(description.at("shape").get<std::vector<int64_t>>(), at::TensorOptions(static_cast<at::ScalarType>(description.at("type").get<int>())));
}

}  // namespace frugal::train
