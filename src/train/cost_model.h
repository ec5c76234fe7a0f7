// What a training run will need, before it is begun: bytes at each rank and seconds a step, for a model, a cluster, a strategy (data_parallel.h)
// and ranks that share a model (model_parallel.h).
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
  ModelParallelSize size = {};  // of the ranks, those that share a model
  int copies() const { return ranks / size.ranks(); }
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
  double compute_seconds = 0, bubble_seconds = 0,
         exposed_seconds = 0;  // of a step; bubble: a stage waits for others; exposed: of communication, what computing does not hide
  double sent_bytes = 0;       // by a rank, a step
  double seconds() const { return compute_seconds + bubble_seconds + exposed_seconds; }
  double bubble() const { return bubble_seconds / (compute_seconds + bubble_seconds); }  // (p - 1) / (m + p - 1) where stages take equally long
  double tokens_per_second = 0;
};

// What a rank of a stage has, as it has it: shapes without numbers.
std::vector<Parameter> parameters_of_stage(const nn::ModelSpec& spec, ModelParallelSize size, int stage);

// Numbers of float32 that backward keeps of a block for each token.
int64_t kept_per_token(const nn::BlockSpec& block);

CostEstimate estimate_cost(const nn::ModelSpec& spec, const Workload& workload, const Cluster& cluster, const MethodRow<OptimizerFactory>& optimizer,
                           const Options& optimizer_options);

}  // namespace frugal::train
