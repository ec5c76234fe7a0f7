// A family: how one architecture writes itself down, in config.json and in GGUF metadata, as a ModelSpec and back. The
// mathematics is in nn/; a family is a mapping of keys. Adding one: a file like qwen3.cpp and a row of model_table.cpp.
//
// Readers and writers are inverse, and the savers use that: what a container's own words, read back, do not give again,
// the container cannot express.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/metadata.h"
#include "nn/spec.h"

namespace frugal::models {

// What a GGUF file says about an architecture: keys, and what only its tensors tell.
struct GgufDescription {
  Metadata metadata;
  int64_t vocab = 0;             // rows of token_embd.weight
  bool tied_embeddings = false;  // there is no output.weight
  bool qkv_bias = false, output_bias = false, mlp_bias = false;
  // rope_freqs.weight, rope_factors_short.weight, rope_factors_long.weight: divisors of the rotary frequencies
  std::map<std::string, std::vector<double>, std::less<>> rope_factors;
};

struct Family {
  std::string_view id;                          // ModelSpec::family
  std::string_view architecture;                // the class that is written
  std::vector<std::string_view> model_types;    // of config.json; the first is the one that is written
  std::vector<std::string_view> architectures;  // of config.json, looked at when model_type is absent
  std::string_view gguf_architecture;

  // Each throws Error{corrupt_file} for a value out of range and Error{unsupported} for a variation that nn/ has no module
  // for. The number of layers must have been checked against the tensors before (io::open_checkpoint does).
  nn::ModelSpec (*from_config)(const JsonObject& config);
  nn::ModelSpec (*from_gguf)(const GgufDescription& description);
  // Each throws Error{unsupported} for what the container has no words for.
  void (*to_config)(const nn::ModelSpec& spec, Json& config);
  void (*to_gguf)(const nn::ModelSpec& spec, GgufDescription& description);

  // GGUF stores the rows of q and k of this architecture reordered, see models/row_order.h.
  bool gguf_interleaves_rotary_rows = false;
  // Hugging Face stores norm weights less one (nn::NormKind::rms_plus_one), GGUF stores them as they multiply.
  bool norm_less_one = false;
  // transformers has the architecture: a directory without frugal's own layouts means something to it.
  bool in_transformers = true;
};

std::span<const Family> model_table();
// Throws Error{unsupported} with the known ones.
const Family& family_at(std::string_view id);
const Family& family_of_config(const JsonObject& config);
const Family& family_of_gguf(const Metadata& metadata);

}  // namespace frugal::models
