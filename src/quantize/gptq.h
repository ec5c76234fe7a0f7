#pragma once

#include "chain/column_sweep.h"
#include "chain/grid.h"
#include "chain/step.h"

namespace frugal::quantize {

using at::Tensor;

struct GptqOptions {
  chain::GridSpec grid;
  double damping = 0.01;          // share of the mean diagonal of H that is added to it
  bool activation_order = false;  // columns of large input energy first; groups stay where they are
};

// What depends on the inputs alone, so that matrices with a common input share it.
struct GptqInputs {
  Tensor order;                   // int64 [in]: column that is settled k-th; undefined: left to right
  chain::ErrorFeedback feedback;  // in that order
};
GptqInputs gptq_inputs(const Tensor& hessian /* [in, in] */, const GptqOptions& options, at::ScalarType type);

// weight [out, in] float32 or float64 (then `inputs` too: all arithmetic runs in it), kept bool [out, in] or undefined:
// dropped entries stay zero.
chain::GridCodes gptq(const Tensor& weight, const Tensor& kept, const GptqInputs& inputs, const GptqOptions& options);

chain::StepRow gptq_row();

}  // namespace frugal::quantize
