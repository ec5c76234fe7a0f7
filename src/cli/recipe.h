// Recipes: chains as a YAML file.
//
//   calibration: {file: text.txt, sequences: 16, length: 512}    # optional
//   evaluation: {file: text.txt, ctx: 512, chunks: 17}           # optional, sweep only
//   steps: [awq:bits=4, ...]                                     # one chain, or
//   chains:
//     - name: wanda50-gptq4
//       steps:
//         - wanda:sparsity=0.5
//         - gptq: {bits: 4, group: 64}
#pragma once

#include <string>
#include <vector>

#include "chain/calibration.h"

namespace frugal::cli {

struct RecipeChain {
  std::string name;                // default: the steps joined by " + "
  std::vector<std::string> steps;  // "gptq:bits=4,group=64"
};

struct Recipe {
  std::string calibration_file, evaluation_file;
  chain::CalibrationOptions calibration;
  int64_t ctx = 512, chunks = 17;  // 17 x 255 scored tokens
  std::vector<RecipeChain> chains;
};

// Throws Error{invalid_input}: unknown keys with the nearest one, wrong types, two chains of one name.
Recipe read_recipe(const std::string& path);

}  // namespace frugal::cli
