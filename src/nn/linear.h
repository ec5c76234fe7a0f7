// Linear: the plug point of the survey. y = sum of kinds(x) + bias. What quantize/, prune/, lowrank/ and tune/ do is
// replace kinds; nothing else in the model knows how a weight is stored.
//
// How a kind holds its weight while it computes (Execution): `stored` is what the file holds, decoded anew at each use (the
// least memory); `expanded` is a float32 copy (training, calibration, --exact); `packed` is integer panels for the running
// instruction set (serving). A kind without integers computes in float under `packed` too, on batch-invariant kernels.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "formats/activation_quant.h"
#include "formats/format.h"
#include "formats/grouped.h"
#include "formats/sparse.h"

namespace frugal::kernels {
class PackedMatrix;
class QuantizedActivations;
}  // namespace frugal::kernels

namespace frugal::nn {

using at::Tensor;

enum class Execution { stored, expanded, packed };

// The input of one or more Linears: the float tensor, and quantized forms made once and shared by Q/K/V or gate/up.
// Lives for one forward; not thread-safe.
class Activation {
 public:
  explicit Activation(Tensor values);  // [tokens, features] float32
  ~Activation();
  const Tensor& values() const { return values_; }
  // int8 in blocks of 32 along features, or one scale per token (W8A8); see kernels/cpu/quantize_activations.h.
  const kernels::QuantizedActivations& quantized(const formats::ActivationQuant& quant) const;

 private:
  Tensor values_;
  struct Forms;
  mutable std::unique_ptr<Forms> forms_;
};

using TensorVisitor = std::function<void(const std::string& name, Tensor& tensor)>;

// One summand of a Linear. Immutable but for its execution form and trainable tensors; shared by tied users.
class LinearKind {
 public:
  virtual ~LinearKind() = default;
  virtual int64_t out_features() const = 0;
  virtual int64_t in_features() const = 0;
  virtual Tensor forward(const Activation& input) const = 0;                            // [tokens, out_features]
  virtual Tensor dense() const = 0;                                                     // float32 [out_features, in_features]; do not write to it
  virtual Tensor rows(const Tensor& ids) const;                                         // float32 [ids, in_features]: embedding look-up
  virtual std::string describe() const = 0;                                             // "Q4_1", "int3 g64", "sparse 50% F16", ...
  virtual uint64_t storage_bytes() const = 0;                                           // as written to disk
  virtual uint64_t resident_bytes() const { return storage_bytes(); }                   // that a forward reads in the present form
  virtual void set_execution(Execution execution) = 0;                                  // makes the form that forward needs, drops the others
  virtual void for_each_tensor(const std::string& prefix, const TensorVisitor& visit);  // float tensors (trainable)
  virtual formats::ActivationQuant activation() const { return {}; }
  virtual const kernels::PackedMatrix* packed() const { return nullptr; }  // that forward multiplies with, or null
};

// A float weight in float32, float16 or bfloat16, perhaps a view of a mapped file.
class DenseKind : public LinearKind {
 public:
  explicit DenseKind(Tensor weight);  // [out_features, in_features]
  int64_t out_features() const override { return weight_.size(0); }
  int64_t in_features() const override { return weight_.size(1); }
  Tensor forward(const Activation& input) const override;
  Tensor dense() const override;
  Tensor rows(const Tensor& ids) const override;
  std::string describe() const override;
  uint64_t storage_bytes() const override { return static_cast<uint64_t>(weight_.nbytes()); }
  uint64_t resident_bytes() const override { return static_cast<uint64_t>((expanded_.defined() ? expanded_ : weight_).nbytes()); }
  void set_execution(Execution execution) override;
  void for_each_tensor(const std::string& prefix, const TensorVisitor& visit) override;
  const Tensor& weight() const { return weight_; }

 private:
  Tensor weight_;
  Tensor expanded_;         // float32 copy of a half-precision weight, or undefined
  bool invariant_ = false;  // packed: batch-invariant kernels instead of the BLAS
};

// A kind whose numbers are decoded row by row: holds the float copy (expanded) or the integer panels (packed).
class EncodedKind : public LinearKind {
 public:
  ~EncodedKind() override;
  Tensor forward(const Activation& input) const override;
  Tensor dense() const override;
  Tensor rows(const Tensor& ids) const override;
  void set_execution(Execution execution) override;
  uint64_t resident_bytes() const override;
  formats::ActivationQuant activation() const override { return activation_; }
  const kernels::PackedMatrix* packed() const override { return packed_.get(); }

 protected:
  explicit EncodedKind(formats::ActivationQuant activation = {}) : activation_(activation) {}
  virtual void decode_row_into(int64_t row, float* values) const = 0;  // [in_features], after hold_source()
  virtual std::shared_ptr<const kernels::PackedMatrix> make_packed() const { return nullptr; }
  // The weight that rows are decoded from: had again if it was let go; not needed for now, since panels stand for it.
  virtual void hold_source() const {}
  virtual void drop_source() const {}

  // Integer kernels quantize activations to 8 bits; another width computes in float.
  bool integer_activation() const { return activation_.kind == formats::ActivationQuant::Kind::none || activation_.bits == 8; }

 private:
  Tensor round_activation(const Tensor& x) const;
  formats::ActivationQuant activation_;
  Tensor expanded_;  // float32, or undefined
  std::shared_ptr<const kernels::PackedMatrix> packed_;
  bool invariant_ = false;
};

// A block format of formats/ (Q4_1, Q6_K, ...): rows of blocks, as GGUF stores them.
class BlockKind : public EncodedKind {
 public:
  struct Source {
    std::span<const std::byte> bytes;
    std::shared_ptr<const void> owner;  // keeps the bytes alive
  };
  // reread: makes a source that is no view of a mapped file again; where there is one, the source is let go while panels stand
  // for it.
  BlockKind(const formats::Format& format, Source source, int64_t out_features, int64_t in_features, std::function<Source()> reread = nullptr);
  int64_t out_features() const override { return out_features_; }
  int64_t in_features() const override { return in_features_; }
  std::string describe() const override { return std::string(format_->id); }
  uint64_t storage_bytes() const override { return storage_bytes_; }
  const formats::Format& format() const { return *format_; }
  std::span<const std::byte> bytes() const;  // not from two threads at once

 protected:
  void decode_row_into(int64_t row, float* values) const override;
  std::shared_ptr<const kernels::PackedMatrix> make_packed() const override;
  void hold_source() const override { bytes(); }
  void drop_source() const override;

 private:
  const std::byte* row_bytes(int64_t row) const;
  const formats::Format* format_;
  mutable Source source_;
  int64_t out_features_, in_features_;
  uint64_t storage_bytes_;
  std::function<Source()> reread_;
};

// Grouped integers, optionally with quantized activations (W8A8, W4A8).
class GroupedKind : public EncodedKind {
 public:
  using Weight = std::shared_ptr<const formats::GroupedWeight>;
  // reread: reads the weight again; where there is one, the weight is let go while panels stand for it.
  explicit GroupedKind(Weight weight, formats::ActivationQuant activation = {}, std::function<Weight()> reread = nullptr);
  int64_t out_features() const override { return header_.rows; }
  int64_t in_features() const override { return header_.columns; }
  std::string describe() const override;
  uint64_t storage_bytes() const override { return storage_bytes_; }
  const Weight& weight() const;  // not from two threads at once

 protected:
  void decode_row_into(int64_t row, float* values) const override;
  std::shared_ptr<const kernels::PackedMatrix> make_packed() const override;
  void hold_source() const override { weight(); }
  void drop_source() const override;

 private:
  formats::GroupedWeight header_;  // of the weight: all but the numbers
  uint64_t storage_bytes_;
  mutable Weight weight_;
  std::function<Weight()> reread_;
};

// Bitmap or N:M sparse, values plain or grouped integers.
class SparseKind : public EncodedKind {
 public:
  explicit SparseKind(std::shared_ptr<const formats::SparseWeight> weight, formats::ActivationQuant activation = {});
  int64_t out_features() const override { return weight_->rows; }
  int64_t in_features() const override { return weight_->columns; }
  std::string describe() const override;
  uint64_t storage_bytes() const override { return weight_->storage_bytes(); }
  const std::shared_ptr<const formats::SparseWeight>& weight() const { return weight_; }
  Tensor mask() const;  // bool [out_features, in_features], true: kept

 protected:
  void decode_row_into(int64_t row, float* values) const override;
  std::shared_ptr<const kernels::PackedMatrix> make_packed() const override;

 private:
  std::shared_ptr<const formats::SparseWeight> weight_;
};

// second(first(x)): a product of two kinds, [out, rank] * [rank, in].
class LowRankKind : public LinearKind {
 public:
  LowRankKind(std::shared_ptr<LinearKind> first, std::shared_ptr<LinearKind> second);
  int64_t out_features() const override { return second_->out_features(); }
  int64_t in_features() const override { return first_->in_features(); }
  Tensor forward(const Activation& input) const override;
  Tensor dense() const override;
  std::string describe() const override;
  uint64_t storage_bytes() const override { return first_->storage_bytes() + second_->storage_bytes(); }
  uint64_t resident_bytes() const override { return first_->resident_bytes() + second_->resident_bytes(); }
  void set_execution(Execution execution) override;
  void for_each_tensor(const std::string& prefix, const TensorVisitor& visit) override;
  const std::shared_ptr<LinearKind>& first() const { return first_; }
  const std::shared_ptr<LinearKind>& second() const { return second_; }

 private:
  std::shared_ptr<LinearKind> first_, second_;
};

class Linear {
 public:
  Linear() = default;
  Linear(std::string name, std::shared_ptr<LinearKind> kind, Tensor bias = {});

  Tensor forward(const Activation& input) const;  // [tokens, out_features]
  Tensor dense() const;                           // sum of kinds, float32
  int64_t out_features() const { return kinds_.front()->out_features(); }
  int64_t in_features() const { return kinds_.front()->in_features(); }
  const std::string& name() const { return name_; }  // module path in Hugging Face's words, no ".weight"
  const std::vector<std::shared_ptr<LinearKind>>& kinds() const { return kinds_; }
  const Tensor& bias() const { return bias_; }  // [out_features] or undefined
  Tensor& mutable_bias() { return bias_; }
  void rename(std::string name) { name_ = std::move(name); }
  // All kinds must agree in shape with each other and, unless `reshape`, with what was there.
  void replace(std::vector<std::shared_ptr<LinearKind>> kinds, bool reshape = false);
  void replace(std::shared_ptr<LinearKind> kind, bool reshape = false) { replace(std::vector{std::move(kind)}, reshape); }
  void set_execution(Execution execution);
  uint64_t storage_bytes() const;
  uint64_t resident_bytes() const;
  std::string describe() const;  // kinds joined by " + "
  void for_each_tensor(const TensorVisitor& visit);
  explicit operator bool() const { return !kinds_.empty(); }

 private:
  std::string name_;
  std::vector<std::shared_ptr<LinearKind>> kinds_;
  Tensor bias_;
};

}  // namespace frugal::nn
