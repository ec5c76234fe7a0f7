// A frozen base in 4 bits, for any adapter.
#pragma once

#include "tune/adapter.h"

namespace frugal::tune {

// The Linears of the blocks whose weight is plain floats become NF4 in blocks of 64, as bitsandbytes quantizes them for load_in_4bit; what is encoded
// already stays as it is, as do the embedding, the head, norms and biases. Before an adapter is attached; Model::set_execution is to be called with
// Execution::stored after it, or the weights are held as floats again.
struct FourBitReport {
  int64_t quantized = 0, kept = 0;  // Linears
};
FourBitReport quantize_base(nn::Model& model, bool double_quantized = true);

AdapterRow qlora_row();

}  // namespace frugal::tune
