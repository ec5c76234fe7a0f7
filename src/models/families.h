// The rows of model_table, each from its family's file.
#pragma once

#include "models/family.h"

namespace frugal::models {

Family llama_family();
Family mistral_family();
Family qwen2_family();
Family qwen3_family();
Family gemma3_family();
Family bitnet_family();
Family mobilellm_family();
Family mobillama_family();
Family frugal_family();

}  // namespace frugal::models
