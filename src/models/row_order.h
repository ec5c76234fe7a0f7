// llama.cpp rotates neighbouring pairs (x0, x1) of a head in the architecture "llama", Hugging Face and frugal pairs that
// lie half a head apart. Converters reorder the rows of q and k instead of the rotation, which gives equal results:
//   interleaved row h * D + 2 j + s  =  split row h * D + s * D / 2 + j,    s in {0, 1}, j < D / 2
// A row is whole in every format, so the reordering never decodes anything.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace frugal::models {

// For each row of the result, the row of the source. `rows` is heads * head_dim; head_dim is even.
std::vector<int64_t> split_from_interleaved(int64_t rows, int64_t head_dim);  // reading a GGUF file
std::vector<int64_t> interleaved_from_split(int64_t rows, int64_t head_dim);  // writing one

// Copies rows of equal size into `target` (the size of `source`).
void reorder_rows(std::span<const std::byte> source, std::span<const int64_t> order, std::span<std::byte> target);

}  // namespace frugal::models
