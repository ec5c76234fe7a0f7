// A weight step of a chain and what it works on. A step is one row of a MethodTable<Step>; each methods folder exports its
// rows (quantize/quantize_table.h ...), cli/ joins them. A block-scope step sees one block at a time in float, with the
// statistics of its inputs; it works on Matrix objects, so that it needs not know whether a weight is dense, masked or a
// low-rank product, nor how the result is stored: that is what makes any order compose.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/method_table.h"
#include "base/rng.h"
#include "chain/calibration.h"
#include "formats/grouped.h"
#include "nn/model.h"

namespace frugal::chain {

class Workbench;

enum class StepScope { block, model };

// What a step leaves behind; decides which orders make sense (see check_order in chain/chain.h).
enum class StepEffect {
  transform,  // change of float weights that keeps their form (smoothing, rotation, training)
  mask,       // zeros
  low_rank,   // factors
  quantize,   // codes
  structure   // layers, heads or channels removed
};

// One weight matrix of a block as a method sees it: y = x * weight^T. A dense Linear is one Matrix; a low-rank one is two
// (`name` ends in ".first" / ".second"), the second with statistics carried through the first.
class Matrix {
 public:
  std::string name;
  nn::InputPoint point;
  Tensor weight;     // float32 [out, in], a private copy: a step may write to it
  Tensor mask;       // bool [out, in], true: kept; undefined: everything is kept
  int n = 0, m = 0;  // N:M pattern of the mask, 0: unstructured

  int64_t out_features() const { return weight.size(0); }
  int64_t in_features() const { return weight.size(1); }
  const InputStatistics& statistics() const;  // throws Error{internal} when the step's row does not ask for them

  // Each replaces what the Linear holds; call exactly one, once.
  // Codes of dropped entries are ignored when there is a mask: the result is then sparse with grouped values.
  void store_grouped(formats::GroupedWeight codes, formats::ActivationQuant activation = {});
  // The sum of `codes` and of `values` [out, in], in F16, where `chosen` (bool, same shape) is true: outliers. A Linear holds
  // a sum, a factor does not: only when holds_sum().
  bool holds_sum() const { return replace_by_sum != nullptr; }
  void store_grouped_and_sparse(formats::GroupedWeight codes, const Tensor& values, const Tensor& chosen);
  // `kept` as mask above; weight is rounded to `value_format`.
  void store_masked(const Tensor& values, const Tensor& kept, int n = 0, int m = 0);
  void store_dense(const Tensor& values);  // keeps the mask
  // values ~ second [out, rank] * first [rank, in]. Refused for a masked matrix.
  void store_low_rank(const Tensor& first, const Tensor& second);

  // Set by BlockContext.
  std::function<void(std::shared_ptr<nn::LinearKind>)> replace;
  std::function<void(std::vector<std::shared_ptr<nn::LinearKind>>)> replace_by_sum;  // empty for a factor
  std::function<const InputStatistics&()> find_statistics;
};

// One block of the model during the layer loop. Weights are float; inputs are those that the calibration tokens cause.
class BlockContext {
 public:
  BlockContext(nn::Block& block, int index, int block_count) : block(block), index(index), block_count(block_count) {}

  nn::Block& block;
  const int index;
  const int block_count;

  // In the order q, k, v, o, gate, up, down. Each call reads the current weights.
  std::vector<Matrix> matrices();
  std::vector<Matrix> matrices_at(nn::InputPoint point);
  const InputStatistics& statistics(nn::InputPoint point) const;

  // Runs what follows `point` on its sample: attention_input -> attention's output (q, k, v, attention, o);
  // attention_output -> o; mlp_input -> MLP; mlp_output -> down. [sample rows, hidden], with the current weights.
  // `input` replaces the sample when given (same shape).
  Tensor run_from(nn::InputPoint point, const Tensor& input = {});

  // y = (x / scale) (W scale): multiplies the input columns of all matrices at `point` by `scale` [in] and divides the
  // operation before it: the norm (attention_input, mlp_input; the others too where there are sub-norms), the rows of v (attention_output; one
  // scale per value channel, so `scale` must agree across the query heads that share it), the rows of up (mlp_output).
  // Statistics follow. Weights must be dense.
  void scale_input(nn::InputPoint point, const Tensor& scale);
  // Heads of q that read the same value channel share one entry: mean over them, spread back to [heads * head_dim].
  Tensor shared_over_heads(const Tensor& per_input_channel) const;

  // Set by the driver.
  std::map<nn::InputPoint, InputStatistics> inputs;
  int64_t sequence_length = 0;
};

struct Step {
  StepScope scope = StepScope::block;
  StepEffect effect = StepEffect::transform;
  // What the block-scope function reads; may depend on options.
  unsigned (*needs)(const Options&) = nullptr;                 // nullptr: nothing; scope model: the text
  void (*run_block)(BlockContext&, const Options&) = nullptr;  // scope block
  void (*run_model)(Workbench&, const Options&) = nullptr;     // scope model
  // true: later blocks are calibrated on what the compressed earlier ones put out (GPTQ); false: on the original
  // activations (AWQ), whose statistics chains with a common prefix share.
  bool sequential = false;
  // With these options the step leaves codes too (joint pruning and quantization); nullptr: as `effect` says.
  bool (*quantizes)(const Options&) = nullptr;
  // With these options the step reads Workbench::original; nullptr: it does not.
  bool (*reads_original)(const Options&) = nullptr;
};

using StepRow = MethodRow<Step>;
using StepTable = MethodTable<Step>;

}  // namespace frugal::chain
