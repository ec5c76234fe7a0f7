#define FRUGAL_ISA_NS scalar
#define FRUGAL_ISA_ID Isa::scalar
#include "kernels/cpu/integer_scalar.h"

#include "kernels/cpu/table_body.h"
