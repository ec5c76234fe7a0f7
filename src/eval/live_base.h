// A base model that is run beside the model under evaluation, chunk by chunk.
#pragma once

#include <memory>

#include "eval/perplexity.h"

namespace frugal::eval {

class LiveBase : public BaseScores {
 public:
  // `text` must outlive the object.
  LiveBase(std::shared_ptr<const nn::Model> model, const EvalText& text, int64_t ctx, int64_t chunks)
      : model_(std::move(model)), text_(text), ctx_(ctx), chunks_(chunks) {}
  int64_t chunks() const override { return chunks_; }
  int64_t vocab() const override { return model_->spec.vocab; }
  at::Tensor log_probabilities(int64_t chunk) const override { return score_chunk(*model_, text_, ctx_, chunk).log_probabilities; }

 private:
  std::shared_ptr<const nn::Model> model_;
  const EvalText& text_;
  int64_t ctx_, chunks_;
};

}  // namespace frugal::eval
