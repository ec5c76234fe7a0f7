// A whole model as what is trained.
#pragma once

#include <vector>

#include "nn/model.h"
#include "train/parameter.h"

namespace frugal::train {

// Every weight becomes a float32 matrix of its own, whatever it was before (quantized, sparse, a product, a view of a file), and takes a
// gradient; so do norms and biases. A tied embedding stays one tensor. Names are Hugging Face's; matrices decay, vectors do not.
std::vector<Parameter> all_parameters(nn::Model& model);

}  // namespace frugal::train
