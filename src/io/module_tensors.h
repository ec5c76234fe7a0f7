// The tensors of one module of a checkpoint, with the checks that every quantized layout needs: presence, format, shape.
// Nothing here trusts a count: sizes come from tensors whose bytes the file reader has already bounded.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "io/checkpoint.h"

namespace frugal::io {

inline constexpr int64_t kMaxFeatures = int64_t{1} << 30;

// Field `index` of `bits` (1..8) bits in a stream packed densely, LSB first, whose word i is words[i * stride].
inline uint32_t packed_field(const uint32_t* words, int64_t stride, int64_t index, int bits) {
  const int64_t bit = index * bits;
  const int shift = static_cast<int>(bit % 32);
  const uint32_t* word = words + bit / 32 * stride;
  uint64_t value = *word >> shift;
  if (shift + bits > 32) value |= static_cast<uint64_t>(word[stride]) << (32 - shift);
  return static_cast<uint32_t>(value) & ((1u << bits) - 1u);
}
inline void set_packed_field(uint32_t* words, int64_t stride, int64_t index, int bits, uint32_t value) {
  const int64_t bit = index * bits;
  const int shift = static_cast<int>(bit % 32);
  uint32_t* word = words + bit / 32 * stride;
  *word |= value << shift;
  if (shift + bits > 32) word[stride] |= value >> (32 - shift);
}
inline int64_t packed_words(int64_t count, int bits) { return (count * bits + 31) / 32; }

struct ScaleTable {
  std::string format;         // "F16", "BF16", "F32"
  std::vector<float> values;  // [rows, columns]
};

class ModuleTensors {
 public:
  ModuleTensors(const Checkpoint& checkpoint, std::string module) : checkpoint_(&checkpoint), module_(std::move(module)) {}

  const std::string& module() const { return module_; }
  const Checkpoint& checkpoint() const { return *checkpoint_; }
  const TensorView* find(std::string_view part) const { return checkpoint_->find(module_ + "." + std::string(part)); }

  // Throw Error{corrupt_file} that names the tensor, what it must be and what it is.
  const TensorView& at(std::string_view part) const;
  const TensorView& matrix(std::string_view part, std::string_view format, int64_t rows, int64_t columns) const;
  const TensorView& any_matrix(std::string_view part, std::string_view format) const;  // dimensions in 1..kMaxFeatures

  // F32, F16 or BF16 of shape [rows, columns]; [rows] too where columns is 1.
  ScaleTable scales(std::string_view part, int64_t rows, int64_t columns) const;
  float scalar(std::string_view part) const;  // one float, whatever the rank; finite and above 0
  std::vector<int32_t> group_index(std::string_view part, int64_t columns, int64_t groups) const;

  [[noreturn]] void fail_shape(const TensorView& view, const std::string& must) const;
  template <typename... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorKind::corrupt_file, "{}: {}: {}", checkpoint_->path, printable(module_, 200), fmt::format(format, std::forward<Args>(args)...));
  }
  template <typename... Args>
  [[noreturn]] void unsupported(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorKind::unsupported, "{}: {}: {}", checkpoint_->path, printable(module_, 200), fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  const Checkpoint* checkpoint_;
  std::string module_;
};

// The values of a view in memory form (checkpoints align them).
template <typename T>
std::span<const T> values_of(const TensorView& view) {
  return {reinterpret_cast<const T*>(view.bytes.data()), view.bytes.size() / sizeof(T)};
}

}  // namespace frugal::io
