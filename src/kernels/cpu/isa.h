// Which instruction set the kernels run with. Chosen once by cpuid; FRUGAL_ISA=scalar|avx2|avx512 forces one, so that the test
// suite can run once per set.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace frugal::kernels {

enum class Isa { scalar, avx2, avx512 };  // avx2: with FMA and F16C; avx512: F, BW, VL, DQ and VNNI

std::string_view to_string(Isa isa);

// The set in use. The first call reads FRUGAL_ISA; throws Error{invalid_input} for an unknown name, Error{unsupported} for a
// set that this machine lacks.
Isa active_isa();

// The sets that this machine can run, slowest first.
std::vector<Isa> available_isas();

// Switches all kernels to `isa` (tests and benchmarks; matrices packed before keep the layout they have and must be packed
// again). Throws Error{unsupported} when the machine lacks it.
void set_isa(Isa isa);

// "avx2 fma f16c avx512f ...": what cpuid says of the features that kernels may use.
std::string cpu_features();

}  // namespace frugal::kernels
