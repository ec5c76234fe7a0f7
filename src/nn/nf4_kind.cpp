#include "nn/nf4_kind.h"

#include <fmt/format.h>

namespace frugal::nn {

std::string Nf4Kind::describe() const { return fmt::format("NF4 b{}{}", weight_.block_size, weight_.double_quantized ? " double" : ""); }

}  // namespace frugal::nn
