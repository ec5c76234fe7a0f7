// What this machine can do at most, measured: the denominators of every share that `frugal bench` and bench/ print.
#pragma once

#include <string>

namespace frugal::kernels {

struct MachineLimits {
  double read_bandwidth = 0;     // bytes/s, the team reading a buffer larger than the caches
  double integer_peak = 0;       // 8-bit multiply-adds/s of the team, inner loop with operands in L1, 32-bit sums
  double integer_peak_4bit = 0;  // the same with 4-bit weights: a block of 32 summed in 16 bits where the set allows it
  double float_peak = 0;         // fp32 multiply-adds/s of the team
  int threads = 0;
  std::string isa;       // to_string(active_isa())
  std::string features;  // cpu_features()
};

// Takes about 0.2 s per figure. Peaks are by the CPU time of each member, bandwidth with a team of one as well: other programs do not count.
MachineLimits measure_machine();
// float_peak alone.
double measure_float_peak();

}  // namespace frugal::kernels
