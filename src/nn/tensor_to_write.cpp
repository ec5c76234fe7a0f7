#include "nn/tensor_to_write.h"

#include <ATen/ATen.h>

#include "base/error.h"

namespace frugal::nn {
namespace {

struct TypeName {
  at::ScalarType type;
  const char* name;
};
constexpr TypeName kTypes[] = {{at::kFloat, "F32"}, {at::kDouble, "F64"}, {at::kHalf, "F16"}, {at::kLong, "I64"},
                               {at::kInt, "I32"},   {at::kByte, "U8"},    {at::kChar, "I8"}};

const char* format_of(at::ScalarType type) {
  for (const TypeName& row : kTypes) {
    if (row.type == type) return row.name;
  }
  fail(ErrorKind::internal, "tensors of {} are not written as they are", at::toString(type));
}

}  // namespace

std::optional<at::ScalarType> scalar_type_of(std::string_view format) {
  for (const TypeName& row : kTypes) {
    if (format == row.name) return row.type;
  }
  return {};
}

io::TensorToWrite tensor_to_write(std::string name, const at::Tensor& tensor) {
  const auto held = std::make_shared<const at::Tensor>(tensor.detach().contiguous());
  const auto* data = static_cast<const std::byte*>(held->const_data_ptr());
  return {std::move(name), format_of(held->scalar_type()), held->sizes().vec(), {}, {data, held->nbytes()}, held};
}

}  // namespace frugal::nn
