// A tensor on its way to a file: what the header must know, and where the bytes come from when its turn comes. Writers
// hold the bytes of one tensor at a time, so a model larger than memory can be converted.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/metadata.h"
#include "formats/format.h"

namespace frugal::io {

struct TensorToWrite {
  std::string name;
  std::string format;                              // row id of formats/
  std::vector<int64_t> shape;                      // slowest dimension first
  std::function<void(std::span<std::byte>)> fill;  // called once, in the order of the file, with size_of() bytes to fill
  std::span<const std::byte> bytes;                // used when there is no `fill`
  std::shared_ptr<const void> owner;               // keeps `bytes` alive; empty: the caller does
};

// Bytes of the tensor. Throws Error{unsupported} for an unknown format, Error{corrupt_file} when the fastest dimension is not
// a multiple of the format's block or the size wraps.
uint64_t size_of(const TensorToWrite& tensor);
uint64_t size_of(std::string_view name, const formats::Format& format, std::span<const int64_t> shape);

// Hands the bytes of `tensor` to `sink`; `scratch` is reused between tensors. Throws Error{internal} when `bytes` do not have
// the size that shape and format ask for.
void emit(const TensorToWrite& tensor, std::vector<std::byte>& scratch, const std::function<void(std::span<const std::byte>)>& sink);

// A tensor of a mapped file, as it is; the file must outlive the writer.
TensorToWrite copy_of(const TensorView& view);

// A tensor that owns its values. T is the in-memory form of `format` (float for F32, uint16_t for F16 and BF16, ...).
template <typename T>
TensorToWrite owned_tensor(std::string name, std::string format, std::vector<int64_t> shape, std::vector<T> values) {
  const auto held = std::make_shared<const std::vector<T>>(std::move(values));
  return {std::move(name), std::move(format), std::move(shape), {}, std::as_bytes(std::span(*held)), held};
}

}  // namespace frugal::io
