// How the weight of a linear layer lies in the tensors of a Hugging Face directory. Reading: compressed-tensors, GPTQ, AWQ,
// FP8, bitsandbytes NF4 and frugal's own layouts, all turned into the structs of formats/. Writing: compressed-tensors where
// it can express the weight, else frugal's own layout.
//
// frugal's own layout: tensors "<module>.frugal.<part>" and a description in frugal.json under "modules":
//   {"<module>": {"terms": [{"kind": "grouped", "bits": 3, ...}, ...], "activation": {...}}}
// Tensors of a second, third, ... term are named "<module>.frugal.<index>.<part>", of a factor "...first.<part>".
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json.h"
#include "formats/activation_quant.h"
#include "formats/grouped.h"
#include "formats/sparse.h"
#include "io/checkpoint.h"
#include "io/tensor_to_write.h"

namespace frugal::io {

// A matrix in a row of formats/: plain (F32, F16, BF16) or blocks (Q4_1, ...). Rows follow each other without padding.
struct BlockWeight {
  std::string format;
  int64_t rows = 0;
  int64_t columns = 0;
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;  // keeps `bytes` alive; null: the checkpoint or the caller does
};

// float8 E4M3 codes with a scale for each tile of block_rows x block_columns (ragged at the edges):
//   w[r, c] = e4m3(code[r, c]) * scale[r / block_rows, c / block_columns]
// One scale per row: 1 x columns. One for the tensor: rows x columns.
struct Fp8Weight {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t block_rows = 1;
  int64_t block_columns = 0;
  std::span<const std::byte> codes;   // [rows, columns]
  std::shared_ptr<const void> owner;  // keeps `codes` alive; null: the checkpoint or the caller does
  std::string scale_format = "F32";
  std::vector<float> scales;  // [ceil(rows / block_rows), ceil(columns / block_columns)]
  // How the file wants the input quantized to E4M3. Kept for the round trip; ignoring it is more exact.
  formats::ActivationQuant::Kind input = formats::ActivationQuant::Kind::none;
  float input_scale = 0;  // per_tensor only
  int64_t scale_columns() const { return (columns + block_columns - 1) / block_columns; }
};

// 4-bit codes into a table of 16 values, a scale for each `block` weights in row-major order over the whole matrix (NF4):
//   w[i] = table[code[i]] * scale[i / block]
struct CodebookWeight {
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t block = 64;
  std::array<float, 16> table{};
  std::vector<uint8_t> codes;  // [ceil(rows * columns / 2)], the even element in the high nibble, as bitsandbytes does
  std::string scale_format = "F32";
  std::vector<float> scales;  // [ceil(rows * columns / block)]
};

struct StoredTerm;
// second * first: [rows, rank] * [rank, columns].
struct LowRankWeight {
  std::shared_ptr<const StoredTerm> first, second;
};

struct StoredTerm {
  std::variant<BlockWeight, std::shared_ptr<const formats::GroupedWeight>, std::shared_ptr<const formats::SparseWeight>, std::shared_ptr<const Fp8Weight>,
               std::shared_ptr<const CodebookWeight>, LowRankWeight>
      value;
};

// A layer's weight: the sum of its terms (at least one), and how its input is quantized.
struct StoredWeight {
  std::vector<StoredTerm> terms;
  formats::ActivationQuant activation;
};

int64_t rows_of(const StoredTerm& term);
int64_t columns_of(const StoredTerm& term);
// Row `row` as floats [columns]; the reference that readers and tests compare with. Not for a LowRankWeight.
void decode_row(const StoredTerm& term, int64_t row, float* values);

// The weight of `module` ("model.layers.0.self_attn.q_proj"), or nullopt when it is a plain "<module>.weight" of the
// checkpoint. Views point into the checkpoint. Throws Error{corrupt_file} for a shape, range or size that does not fit,
// Error{unsupported} for a layout that is not read.
std::optional<StoredWeight> read_quantized(const Checkpoint& checkpoint, std::string_view module);

// Names of the modules that the checkpoint stores in another way than as "<module>.weight" in floats.
std::set<std::string> quantized_modules(const Checkpoint& checkpoint);

// Throws Error{unsupported, corrupt_file} when config.json asks for a quantization that read_quantized does not know.
// open_checkpoint calls it.
void check_quantization_config(const Json& config, const std::string& path);

// "" when compressed-tensors (and so transformers and vLLM) can hold the weight exactly, else the reason.
std::string cannot_express_in_compressed_tensors(const StoredWeight& weight);

// Collects a model's linear layers for writing. The tensors point into the weights, which are kept alive: nothing is copied
// but scales and zero points, and these only while their tensor is written.
class QuantizedWriter {
 public:
  // own_layout_only: use frugal's layout even where compressed-tensors could do it (smaller: no repeated scales).
  explicit QuantizedWriter(bool own_layout_only = false) : own_layout_only_(own_layout_only) {}

  // The stored form of `module`, in compressed-tensors or else in frugal's layout. A weight of one plain BlockWeight (F32,
  // F16, BF16) with no activation quantization becomes "<module>.weight".
  void add(const std::string& module, StoredWeight weight);

  std::vector<TensorToWrite> take_tensors() { return std::move(tensors_); }
  // config.json's quantization_config; null when no module needs it. Plain and own-layout modules are in "ignore".
  Json quantization_config() const;
  // frugal.json's "modules"; null when no module needs it.
  const Json& modules() const { return modules_; }

 private:
  struct Group {
    Json scheme;  // a value of config_groups without targets
    std::vector<std::string> targets;
  };
  bool own_layout_only_;
  std::vector<TensorToWrite> tensors_;
  std::vector<Group> groups_;
  std::vector<std::string> ignore_;
  Json modules_;
};

}  // namespace frugal::io
