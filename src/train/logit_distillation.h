// A model learns the distributions that another one has over the data's own rows, beside or in place of their labels.
#pragma once

#include <functional>

#include "train/language_modeling.h"

namespace frugal::train {

// Backward of a loss that is a sum over `rows` [n] int64 of hidden [tokens, hidden_size], which has its graph. slope(logits, part) gives its gradient
// by the logits of a part of the rows, both without graph; logits exist for some rows at once only.
void backward_by_rows(const nn::Model& model, const at::Tensor& hidden, const at::Tensor& rows,
                      const std::function<at::Tensor(const at::Tensor& logits, const at::Tensor& part)>& slope);

// weight * scale * KL(teacher || student) + (1 - weight) * cross-entropy of the label (arXiv 1503.02531 at temperature 1). The scale is 1, or with a
// token_temperature > 0 the softmax over a sequence's targets of the teacher's cross-entropy over it, times their number (arXiv 2308.06744, equation 6). Beside the cross-entropy of
// soft labels (arXiv 2305.17888, equation 6) the divergence lacks the teacher's entropy, a constant.
class LogitDistillation : public LanguageModeling {
 public:
  // All but the options are referred to. The teacher reads tokens as the student does.
  LogitDistillation(const nn::Model& student, const nn::Model& teacher, const data::Dataset& dataset, LanguageModelingOptions options, double weight,
                    double token_temperature = 0);
  double accumulate(const MicroBatch& batch, double scale, uint64_t seed) override;
  void accumulate_drawn(const MicroBatch& batch, double scale, uint64_t seed) override;

 private:
  at::Tensor token_scales(const TokenBatch& tokens, const at::Tensor& theirs) const;  // [tokens]; theirs: the teacher's hidden states

  const nn::Model& teacher_;
  double weight_, token_temperature_;
};

}  // namespace frugal::train
