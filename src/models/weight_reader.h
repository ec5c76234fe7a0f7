// The modules' weights out of a checkpoint of either container, each found, with the right shape, in the order that nn/
// wants. Nothing is copied but what the container stores differently.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "models/tensor_names.h"
#include "nn/linear.h"

namespace frugal::models {

struct MatrixRequest {
  ModuleName name;
  MatrixShape shape;
  bool bias = false;
  int64_t rotary_head_dim = 0;  // > 0: rows are those of q or k, and GGUF may hold them in another order
};

class WeightReader {
 public:
  // interleaved: see Family::gguf_interleaves_rotary_rows.
  WeightReader(std::shared_ptr<const io::Checkpoint> checkpoint, bool interleaved);

  // Throw Error{corrupt_file} that names the tensor when it is missing or has another shape.
  nn::Linear linear(const MatrixRequest& request);
  nn::Tensor vector(const ModuleName& module, std::string_view suffix, int64_t count);  // float32 [count]

  // Tensors that no request asked for.
  std::vector<std::string> unused() const;

 private:
  using Kinds = std::vector<std::shared_ptr<nn::LinearKind>>;
  std::string file_name(const ModuleName& module) const;  // the module in the file's words
  Kinds kinds(const MatrixRequest& request);
  std::shared_ptr<nn::LinearKind> plain_kind(const MatrixRequest& request);

  std::shared_ptr<const io::Checkpoint> checkpoint_;
  bool gguf_, interleaved_;
  std::string prefix_;          // what stands for "model." in the file
  std::set<std::string> used_;  // modules, in the file's words
};

}  // namespace frugal::models
