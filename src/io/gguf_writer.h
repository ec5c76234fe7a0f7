// Writes a GGUF v3 file: what llama.cpp and the gguf package read.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/gguf.h"
#include "io/tensor_to_write.h"

namespace frugal::io {

class GgufWriter {
 public:
  // alignment: a power of two up to kMaxGgufAlignment; 32 is the format's default and is not written.
  explicit GgufWriter(std::string path, uint64_t alignment = 32);

  // Without a type: bool, string; unsigned -> u32 (u64 if one value needs it), signed -> i32 (or i64), floating -> f32.
  // A key that is set again is replaced. Throws Error{invalid_input} for a value that the given type cannot hold exactly
  // (a double is rounded to f32) and for a key that GGUF does not allow.
  void set(const std::string& key, MetadataValue value, std::optional<GgufKeyType> type = {});
  // Every key of `metadata` with its type, but general.alignment and split.*, which this writer decides.
  void set_all(const Metadata& metadata, const GgufKeyTypes& types);

  // Tensors are written in this order. At most 4 dimensions, name at most 63 bytes (llama.cpp's limit).
  void add(TensorToWrite tensor);

  // Writes header and infos, then the data of one tensor after the other, and puts the file in place atomically.
  void write() const;

 private:
  std::string path_;
  uint64_t alignment_;
  Metadata metadata_;
  GgufKeyTypes types_;
  std::vector<TensorToWrite> tensors_;
};

}  // namespace frugal::io
