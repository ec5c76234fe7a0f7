#if defined(__x86_64__)
#define FRUGAL_ISA_NS avx2
#define FRUGAL_ISA_ID Isa::avx2
#include "kernels/cpu/integer_avx2.h"

#include "kernels/cpu/table_body.h"
#endif
