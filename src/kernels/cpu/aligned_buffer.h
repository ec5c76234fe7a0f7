// Memory for packed weights and workspaces: 64-byte aligned; large buffers ask for huge pages (a decode step walks the whole
// buffer once, so with 4 KB pages it pays a page walk every 4 KB).
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace frugal::kernels {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  enum class Fill { zeros, none };                                  // none: the memory belongs to the socket of whoever writes it first
  explicit AlignedBuffer(uint64_t bytes, Fill fill = Fill::zeros);  // throws Error{out_of_memory}
  ~AlignedBuffer();
  AlignedBuffer(AlignedBuffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  // Makes room for at least `bytes`; the old content is lost when the buffer grows.
  void reserve(uint64_t bytes) {
    if (bytes > bytes_) *this = AlignedBuffer(bytes);
  }
  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  uint64_t bytes_ = 0;
};

}  // namespace frugal::kernels
