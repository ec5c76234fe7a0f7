#include "io/tensor_to_write.h"

#include "base/checked.h"

namespace frugal::io {

uint64_t size_of(std::string_view name, const formats::Format& format, std::span<const int64_t> shape) {
  const auto block = static_cast<uint64_t>(format.block_weights);
  const uint64_t count = checked_product(shape, name);
  const uint64_t fastest = shape.empty() ? 1 : static_cast<uint64_t>(shape.back());
  if (fastest % block != 0) {
    fail(ErrorKind::corrupt_file, "{}: row of {} weights is not a multiple of the {} in a {} block", name, fastest, block, format.id);
  }
  return checked_mul(count / block, static_cast<uint64_t>(format.block_bytes), name);
}

uint64_t size_of(const TensorToWrite& tensor) { return size_of(tensor.name, formats::format_at(tensor.format), tensor.shape); }

void emit(const TensorToWrite& tensor, std::vector<std::byte>& scratch, const std::function<void(std::span<const std::byte>)>& sink) {
  const uint64_t size = size_of(tensor);
  if (tensor.fill) {
    scratch.resize(size);
    tensor.fill(scratch);
    sink(scratch);
    return;
  }
  if (tensor.bytes.size() != size) {
    fail(ErrorKind::internal, "{}: {} bytes given, shape and format {} ask for {}", tensor.name, tensor.bytes.size(), tensor.format, size);
  }
  sink(tensor.bytes);
}

TensorToWrite copy_of(const TensorView& view) { return {view.name, view.format, view.shape, {}, view.bytes, {}}; }

}  // namespace frugal::io
