// Linear kinds from the weights that io/ reads, and back.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "io/quantized_layout.h"
#include "nn/linear.h"

namespace frugal::models {

// A layout that nn/ has no kind of its own for (FP8, NF4): decoded row by row by io/.
class StoredKind final : public nn::EncodedKind {
 public:
  explicit StoredKind(io::StoredTerm term) : term_(std::move(term)) {}
  int64_t out_features() const override { return io::rows_of(term_); }
  int64_t in_features() const override { return io::columns_of(term_); }
  std::string describe() const override;
  uint64_t storage_bytes() const override;
  const io::StoredTerm& term() const { return term_; }

 protected:
  void decode_row_into(int64_t row, float* values) const override { io::decode_row(term_, row, values); }

 private:
  io::StoredTerm term_;
};

// A matrix of floats or of blocks whose bytes `owner` keeps alive (views of mapped files are not copied).
// `name` leads messages; reread: as for BlockKind. Throws Error{unsupported} for a format that is neither.
std::shared_ptr<nn::LinearKind> kind_of_matrix(const std::string& name, const io::BlockWeight& matrix, std::shared_ptr<const void> owner,
                                               std::function<nn::BlockKind::Source()> reread = nullptr);

// One kind for each term. `reread` reads the same weight again, for kinds that let it go while they are packed; `owner` keeps
// alive what the terms only view.
std::vector<std::shared_ptr<nn::LinearKind>> kinds_of(const std::string& name, const io::StoredWeight& weight, const std::function<io::StoredWeight()>& reread,
                                                      const std::shared_ptr<const void>& owner);

// The stored form of kinds, which the result keeps alive. Throws Error{unsupported} when the kinds ask for different
// quantizations of one input.
io::StoredWeight stored_weight(const std::string& name, const std::vector<std::shared_ptr<nn::LinearKind>>& kinds);

}  // namespace frugal::models
