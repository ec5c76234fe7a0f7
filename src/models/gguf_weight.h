// Weights in GGUF's block formats, where these say exactly the same numbers.
#pragma once

#include <memory>
#include <string>

#include "formats/grouped.h"
#include "io/tensor_to_write.h"
#include "nn/linear.h"

namespace frugal::models {

// Where a weight goes in a GGUF file.
struct GgufPlace {
  std::string name;                  // "blk.0.attn_q.weight"
  std::string float_format = "F16";  // what floats become
  bool expand = false;               // what GGUF has no words for becomes floats too
  int64_t rotary_head_dim = 0;       // > 0: rows are reordered as models/row_order.h says
};

// "" when the sum of `kinds` can be stored as it is, else the reason: floats, one of GGUF's own block formats, or grouped
// integers that Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0 hold exactly (4, 5 or 8 bits; groups of a multiple of 32; scales and
// minimums that are F16).
std::string cannot_express_in_gguf(const nn::Linear& linear);

// The tensor, whose bytes are made when they are written. Throws Error{unsupported} with the reason, Error{invalid_input} when
// a weight is too large for float_format.
io::TensorToWrite gguf_tensor(const nn::Linear& linear, const GgufPlace& place);

// The weight as plain floats, for either container: the bytes of floats that have the format already, else dense() when it
// is written.
io::TensorToWrite float_tensor(const nn::Linear& linear, const std::string& name, const std::string& format);

// Grouped integers with the numbers of a symmetric block format (Q4_0, Q5_0, Q8_0); null for any other.
std::shared_ptr<const formats::GroupedWeight> grouped_from_blocks(const nn::BlockKind& kind);

}  // namespace frugal::models
