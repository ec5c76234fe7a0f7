// What a training run will need, before it is begun: bytes at each rank and seconds a step, for a model, a cluster and a strategy (data_parallel.h).
// Counts follow from the program: what backward keeps of a block (nn/block.cpp), what is sent (dist/), what a step computes (flops.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nn/spec.h"
#include "train/data_parallel.h"
#include "train/optimizer.h"

namespace frugal::train {

struct Workload {
  int ranks = 1;
  Strategy strategy = Strategy::ddp;
  int64_t micro_batch_tokens = 0, sequence_tokens = 0;
  int64_t micro_batches = 1;  // a step's, of all ranks together
  bool recompute = false;     // zero3 does in any case
};

struct Cluster {
  double flops = 0;             // a rank's, that training gets: peak times utilisation
  double bytes_per_second = 0;  // between two ranks
  double latency = 0;           // of a message, seconds
};

struct CostEstimate {
  // At the rank that needs most.
  double parameters = 0, gradients = 0, optimizer = 0, activations = 0, buffers = 0;  // bytes
  double bytes() const { return parameters + gradients + optimizer + activations + buffers; }
  double compute_seconds = 0, exposed_seconds = 0;  // of a step; exposed: of communication, what computing does not hide
  double sent_bytes = 0;                            // by a rank, a step
  double seconds() const { return compute_seconds + exposed_seconds; }
  double tokens_per_second = 0;
};

// Numbers of float32 that backward keeps of a block for each token.
int64_t kept_per_token(const nn::BlockSpec& block);

CostEstimate estimate_cost(const nn::ModelSpec& spec, const Workload& workload, const Cluster& cluster, const MethodRow<OptimizerFactory>& optimizer,
                           const Options& optimizer_options);

}  // namespace frugal::train
