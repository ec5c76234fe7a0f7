// One reader for each way that checkpoints store quantized weights. Each takes the tensors of a module that has the
// layout's leading tensor and gives the weight; all throw Error{corrupt_file, unsupported}.
#pragma once

#include "io/module_tensors.h"
#include "io/quantized_layout.h"

namespace frugal::io {

StoredWeight read_compressed_tensors(const ModuleTensors& tensors, const JsonObject& config);
StoredWeight read_gptq(const ModuleTensors& tensors, const JsonObject& config);
StoredWeight read_awq(const ModuleTensors& tensors, const JsonObject& config);
StoredWeight read_fp8(const ModuleTensors& tensors, const JsonObject& config);
StoredWeight read_bitsandbytes(const ModuleTensors& tensors);
StoredWeight read_own_layout(const ModuleTensors& tensors, const JsonObject& description);

// Throw Error{corrupt_file, unsupported} when the whole configuration cannot be read.
void check_compressed_tensors_config(const JsonObject& config);
void check_gptq_config(const JsonObject& config);
void check_awq_config(const JsonObject& config);

// "weight" in F8_E4M3 with a scale for each tile; blocks larger than the matrix are cut to it.
Fp8Weight make_fp8(const ModuleTensors& tensors, const std::string& scale_part, int64_t block_rows, int64_t block_columns);

// Parts of the own layout that the writer shares with the reader. `prefix` is "<module>.frugal." or deeper.
Json describe_own_layout(const StoredWeight& weight, const std::string& module, std::vector<TensorToWrite>& tensors);

}  // namespace frugal::io
