#if defined(__x86_64__)
#define FRUGAL_ISA_NS avx512
#define FRUGAL_ISA_ID Isa::avx512
#include "kernels/cpu/integer_avx512.h"

#include "kernels/cpu/table_body.h"
#endif
