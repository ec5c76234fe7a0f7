// All bodies and the table of one instruction set. Included once per set, after FRUGAL_ISA_NS, FRUGAL_ISA_ID and the set's
// vector and integer headers.
#pragma once

#include "kernels/cpu/activation.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/float_matmul.h"
#include "kernels/cpu/kernel_table.h"

#include "kernels/cpu/math_body.h"

#include "kernels/cpu/activation_body.h"
#include "kernels/cpu/attention_body.h"
#include "kernels/cpu/float_matmul_body.h"
#include "kernels/cpu/gemm_body.h"
#include "kernels/cpu/norm_body.h"
#include "kernels/cpu/packed_matmul_body.h"
#include "kernels/cpu/quantize_body.h"
#include "kernels/cpu/rope_body.h"

namespace frugal::kernels::FRUGAL_ISA_NS {

// 10 chains of fused multiply-adds: more than latency times throughput of any of our targets.
inline int64_t float_loop(int64_t iterations) {
  Vec sums[10];
  const Vec factor = set1(0.5f), term = set1(1.0f);
  for (int i = 0; i < 10; ++i) sums[i] = set1(static_cast<float>(i));
  for (int64_t n = 0; n < iterations; ++n) {
    for (int i = 0; i < 10; ++i) sums[i] = fma(sums[i], factor, term);
  }
  float lanes[Vec::kLanes];
  for (int i = 0; i < 10; ++i) {
    store(lanes, sums[i]);
    asm volatile("" : : "r"(lanes) : "memory");
  }
  return iterations * 10 * Vec::kLanes;
}

extern const KernelTable kTable;
const KernelTable kTable = {
    FRUGAL_ISA_ID, kLaneRows,    kSignedBytes, matmul_packed,    quantize,         attention,         attention_merge,
    rms_norm,      layer_norm,   rope_halves,  rope_interleaved, gated_activation, rms_norm_backward, gated_activation_backward,
    kGemmRows,     kGemmColumns, gemm_pack,    gemm_block,       softmax,          log_softmax,       exponential,
    to_f16,        matmul_float, read_memory,  integer_loop,     float_loop,
};

}  // namespace frugal::kernels::FRUGAL_ISA_NS
