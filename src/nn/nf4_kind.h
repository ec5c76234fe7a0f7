// A matrix in NormalFloat 4 (formats/nf4.h), decoded at each use: the base of a QLoRA.
#pragma once

#include "formats/nf4.h"
#include "nn/linear.h"

namespace frugal::nn {

class Nf4Kind : public EncodedKind {
 public:
  explicit Nf4Kind(formats::Nf4Weight weight) : weight_(std::move(weight)) {}
  int64_t out_features() const override { return weight_.rows; }
  int64_t in_features() const override { return weight_.columns; }
  std::string describe() const override;
  uint64_t storage_bytes() const override { return weight_.storage_bytes(); }
  const formats::Nf4Weight& weight() const { return weight_; }

 protected:
  void decode_row_into(int64_t row, float* values) const override { formats::decode_row(weight_, row, values); }

 private:
  formats::Nf4Weight weight_;
};

}  // namespace frugal::nn
