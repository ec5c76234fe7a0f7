// What adapters put into a Linear: a summand with few parameters (LoRA, VeRA), or a kind around the ones that are there (DoRA, IA3). The
// others stay as they are, in whatever format: only the adapter's own tensors take a gradient.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nn/linear.h"

namespace at {
struct Generator;
}  // namespace at

namespace frugal::nn {

// Dropout of all kinds of one adapter: masks come from one generator, in the order of the forward, so that a run that is resumed with its
// state draws the same ones. Whoever computes a forward twice for one step (recomputation) restores the state in between.
class AdapterDropout {
 public:
  AdapterDropout(double probability, uint64_t seed);  // of an entry to become zero, in [0, 1)
  ~AdapterDropout();
  AdapterDropout(const AdapterDropout&) = delete;
  AdapterDropout& operator=(const AdapterDropout&) = delete;
  void set_training(bool training) { training_ = training; }
  bool active() const { return training_ && probability_ > 0; }
  Tensor apply(const Tensor& x);  // x itself unless active
  void seed(uint64_t seed);
  Tensor state() const;  // of the generator, uint8
  void set_state(const Tensor& state);

 private:
  double probability_;
  bool training_ = false;
  std::unique_ptr<at::Generator> generator_;
};

class AdapterKind : public LinearKind {
 public:
  // The adapter's own tensors by the names that the PEFT format gives them: "<module>.lora_A.weight".
  virtual void for_each_adapter_tensor(const std::string& module, const TensorVisitor& visit) = 0;
  virtual bool wraps() const { return false; }  // the kinds that were there are inside
  // Whether it is a matrix, so that dense() gives one; otherwise that throws Error{unsupported}.
  virtual bool linear() const { return true; }
  void for_each_tensor(const std::string& prefix, const TensorVisitor& visit) override { for_each_adapter_tensor(prefix, visit); }
  void set_execution(Execution execution) override { invariant_ = execution == Execution::packed; }

 protected:
  bool invariant_ = false;  // packed: batch-invariant kernels instead of the BLAS
};

// scale * B A (arXiv 2106.09685). With a group size it reads means of neighbouring inputs, times their number (QA-LoRA, arXiv 2309.14717), so
// that its matrix is one number for each row and group.
class LoraKind : public AdapterKind {
 public:
  // a [rank, in / group], b [out, rank] float32.
  LoraKind(Tensor a, Tensor b, double scale, std::shared_ptr<AdapterDropout> dropout = nullptr, int64_t group = 1);
  int64_t out_features() const override { return b_.size(0); }
  int64_t in_features() const override { return a_.size(1) * group_; }
  int64_t rank() const { return a_.size(0); }
  int64_t group() const { return group_; }
  Tensor by_group() const;  // [out, in / group], what is added to each weight of a group
  Tensor forward(const Activation& input) const override;
  Tensor dense() const override;
  std::string describe() const override;
  uint64_t storage_bytes() const override { return static_cast<uint64_t>(a_.nbytes() + b_.nbytes()); }
  void for_each_adapter_tensor(const std::string& module, const TensorVisitor& visit) override;

 private:
  Tensor a_, b_;
  double scale_;
  std::shared_ptr<AdapterDropout> dropout_;
  int64_t group_;
};

// scale * B diag(e) A (arXiv 2303.10512, P Lambda Q there); the rank may be 0.
class AdaLoraKind : public AdapterKind {
 public:
  AdaLoraKind(Tensor a, Tensor b, Tensor e, double scale, std::shared_ptr<AdapterDropout> dropout = nullptr);  // a [rank, in], b [out, rank], e [rank, 1]
  int64_t out_features() const override { return b_.size(0); }
  int64_t in_features() const override { return a_.size(1); }
  Tensor forward(const Activation& input) const override;
  Tensor dense() const override;
  std::string describe() const override;
  uint64_t storage_bytes() const override { return static_cast<uint64_t>(a_.nbytes() + b_.nbytes() + e_.nbytes()); }
  void for_each_adapter_tensor(const std::string& module, const TensorVisitor& visit) override;

 private:
  Tensor a_, b_, e_;
  double scale_;
  std::shared_ptr<AdapterDropout> dropout_;
};

// diag(b) B diag(d) A with A and B drawn once for all modules (arXiv 2310.11454).
class VeraKind : public AdapterKind {
 public:
  // a [rank, in], b [out, rank]: parts of the shared ones; lambda_d [rank], lambda_b [out].
  VeraKind(Tensor a, Tensor b, Tensor lambda_d, Tensor lambda_b, std::shared_ptr<AdapterDropout> dropout = nullptr);
  int64_t out_features() const override { return b_.size(0); }
  int64_t in_features() const override { return a_.size(1); }
  Tensor forward(const Activation& input) const override;
  Tensor dense() const override;
  std::string describe() const override;
  uint64_t storage_bytes() const override { return static_cast<uint64_t>(lambda_d_.nbytes() + lambda_b_.nbytes()); }
  uint64_t resident_bytes() const override { return storage_bytes() + static_cast<uint64_t>(a_.nbytes() + b_.nbytes()); }
  void for_each_adapter_tensor(const std::string& module, const TensorVisitor& visit) override;

 private:
  Tensor a_, b_, lambda_d_, lambda_b_;
  std::shared_ptr<AdapterDropout> dropout_;
};

// Stands around the sum of the kinds that were there. What works on their output takes the Linear's bias in, which then has none itself.
class WrappingKind : public AdapterKind {
 public:
  int64_t out_features() const override { return base_.out_features(); }
  int64_t in_features() const override { return base_.in_features(); }
  uint64_t storage_bytes() const override { return base_.storage_bytes(); }
  uint64_t resident_bytes() const override { return base_.resident_bytes(); }
  void for_each_tensor(const std::string& prefix, const TensorVisitor& visit) override;
  void set_execution(Execution execution) override;
  bool wraps() const override { return true; }
  bool holds_bias() const { return base_.bias().defined(); }
  // What is left to a Linear that gets dense() as its weight; undefined without a bias.
  virtual Tensor merged_bias() const { return base_.bias(); }

 protected:
  explicit WrappingKind(std::vector<std::shared_ptr<LinearKind>> base, Tensor bias = {});
  Linear base_;  // as it was, with the bias if that is here
};

// magnitude * (W + scale * B A) / |W + scale * B A|, norms over rows (arXiv 2402.09353, equation 5). No gradient flows through the norm
// (section 4.3 there).
class DoraKind : public WrappingKind {
 public:
  // As LoraKind; magnitude [out].
  DoraKind(std::vector<std::shared_ptr<LinearKind>> base, Tensor a, Tensor b, Tensor magnitude, double scale,
           std::shared_ptr<AdapterDropout> dropout = nullptr);
  Tensor forward(const Activation& input) const override;
  Tensor dense() const override;
  std::string describe() const override;
  uint64_t storage_bytes() const override { return WrappingKind::storage_bytes() + lora_.storage_bytes() + static_cast<uint64_t>(magnitude_.nbytes()); }
  uint64_t resident_bytes() const override { return WrappingKind::resident_bytes() + lora_.resident_bytes() + static_cast<uint64_t>(magnitude_.nbytes()); }
  void for_each_adapter_tensor(const std::string& module, const TensorVisitor& visit) override;
  void set_execution(Execution execution) override;

 private:
  Tensor factor() const;  // [out]
  LoraKind lora_;
  Tensor magnitude_;
  std::shared_ptr<AdapterDropout> dropout_;
  Tensor served_factor_;  // packed: computed once
};

// l * (W x + bias), or W (l * x) + bias (arXiv 2205.05638).
class Ia3Kind : public WrappingKind {
 public:
  enum class Place { output, input };
  // l: [out, 1] or [1, in], float32. bias: of the Linear; undefined with Place::input.
  Ia3Kind(std::vector<std::shared_ptr<LinearKind>> base, Tensor l, Place place, Tensor bias = {});
  Tensor forward(const Activation& input) const override;
  Tensor dense() const override;
  Tensor merged_bias() const override;
  std::string describe() const override;
  uint64_t storage_bytes() const override { return WrappingKind::storage_bytes() + static_cast<uint64_t>(l_.nbytes()); }
  uint64_t resident_bytes() const override { return WrappingKind::resident_bytes() + static_cast<uint64_t>(l_.nbytes()); }
  void for_each_adapter_tensor(const std::string& module, const TensorVisitor& visit) override;

 private:
  Tensor l_;
  Place place_;
};

// A narrow layer with an activation f, added to a matrix's output, to its input, or beside it (arXiv 1902.00751, 2304.01933):
//   output: h + scale * up f(down h), h = W x + bias;  input: W (x + scale * up f(down x)) + bias;  parallel: W x + scale * up f(down x) + bias.
class BottleneckKind : public WrappingKind {
 public:
  enum class Place { output, input, parallel };
  enum class Function { relu, tanh, gelu, silu };
  struct Form {
    Place place = Place::output;
    Function function = Function::relu;
    double scale = 1;
  };
  // down [size, width of what it reads], up [width of what it is added to, size], float32. bias: of the Linear with Place::output.
  BottleneckKind(std::vector<std::shared_ptr<LinearKind>> base, Tensor down, Tensor up, Form form, std::shared_ptr<AdapterDropout> dropout = nullptr,
                 Tensor bias = {});
  Tensor forward(const Activation& input) const override;
  bool linear() const override { return false; }
  Tensor dense() const override;
  std::string describe() const override;
  uint64_t storage_bytes() const override { return WrappingKind::storage_bytes() + static_cast<uint64_t>(down_.nbytes() + up_.nbytes()); }
  uint64_t resident_bytes() const override { return WrappingKind::resident_bytes() + static_cast<uint64_t>(down_.nbytes() + up_.nbytes()); }
  void for_each_adapter_tensor(const std::string& module, const TensorVisitor& visit) override;

 private:
  Tensor change(const Tensor& x) const;
  Tensor down_, up_;
  Form form_;
  std::shared_ptr<AdapterDropout> dropout_;
};

}  // namespace frugal::nn
