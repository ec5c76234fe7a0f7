// The keys that all decoder families share, in both containers; a family's file adds what is its own.
#pragma once

#include <string>
#include <vector>

#include "models/family.h"
#include "models/rope.h"
#include "nn/spec.h"

namespace frugal::models {

// What a key of config.json means when it is absent; 0: the key must be there. The classes of transformers have these
// defaults, and their files leave such keys out.
struct ConfigDefaults {
  int64_t vocab = 0, heads = 0;
  int64_t kv_heads = 0;  // 0: as many as heads
  int64_t head_dim = 0;  // 0: hidden_size / heads
  int64_t context_length = 0;
  bool tied_embeddings = false;
  const char* activation_key = "hidden_act";
  const char* activation = "silu";
  nn::MlpKind mlp = nn::MlpKind::gated_silu;
};

// Sizes, norm, activation, tie flag; blocks all alike, attention scaled by 1 / sqrt(head_dim), rope left to the family.
nn::ModelSpec read_decoder(const JsonObject& config, const ConfigDefaults& defaults);
RopeContext rope_context(const nn::ModelSpec& spec, double default_theta = 10000);
void set_rope(nn::ModelSpec& spec, const nn::RopeSpec& rope);

// Which layers see a window only: `layer_types` if the file has it. Throws Error{corrupt_file} for a wrong count,
// Error{unsupported} for another kind of layer. Empty: the key is absent.
std::vector<bool> windowed_layers(const JsonObject& config, size_t layers);
// Qwen: use_sliding_window, sliding_window, max_window_layers, layer_types.
void read_optional_window(const JsonObject& config, nn::ModelSpec& spec);
void write_optional_window(const nn::ModelSpec& spec, Json& config);

// The inverse of read_decoder. Throws Error{unsupported} when blocks differ in more than window and rope.
void write_decoder(const nn::ModelSpec& spec, const char* activation_key, const char* activation, Json& config);

// The same of a Llama: with its rope and biases.
nn::ModelSpec read_llama(const JsonObject& config, const ConfigDefaults& defaults);
void write_llama(const nn::ModelSpec& spec, Json& config);

// {architecture}.*: sizes (numbers or one per layer), norm epsilon, biases, tie; blocks with attention scaled as above.
nn::ModelSpec read_decoder(const GgufDescription& description);
void write_decoder(const nn::ModelSpec& spec, GgufDescription& description);

// Throws Error{unsupported} that names the first block that differs from block 0 in a dimension.
void require_equal_dimensions(const nn::ModelSpec& spec, std::string_view container);

}  // namespace frugal::models
