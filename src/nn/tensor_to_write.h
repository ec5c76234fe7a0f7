// Tensors on their way into a file.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <string_view>

#include "io/tensor_to_write.h"

namespace frugal::nn {

// Its numbers as they are: float32, float64, int64, int32, int8 or uint8, else Error{internal}. Shares the tensor's memory where that is contiguous.
io::TensorToWrite tensor_to_write(std::string name, const at::Tensor& tensor);

// The type that a file's word ("F32", "I64", ...) means; nothing for one that tensor_to_write does not write.
std::optional<at::ScalarType> scalar_type_of(std::string_view format);

}  // namespace frugal::nn
