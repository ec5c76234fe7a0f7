// Direct preference optimization (arXiv 2305.18290, equation 7): the answer that was chosen becomes more likely than the rejected one, measured
// against the model as it was.
#pragma once

#include "train/language_modeling.h"

namespace frugal::train {

struct PreferenceOptions {
  double beta = 0.1;           // how far the model may go from where it was
  double label_smoothing = 0;  // share of pairs whose order is wrong (cDPO, arXiv 2305.18290v2 appendix; as in trl)
};

class Preference : public Objective {
 public:
  // `dataset` has pairs. What the model says of both answers now, before it is trained, is computed here, once, and is the reference: no second
  // model is held. Shows progress.
  Preference(const nn::Model& model, const data::Dataset& dataset, LanguageModelingOptions options, PreferenceOptions preference);
  std::vector<MicroBatch> epoch(int64_t epoch) override;  // targets are pairs: the loss is a mean over them
  double accumulate(const MicroBatch& batch, double scale, uint64_t seed) override;
  Json metrics() override;  // rewards/chosen, rewards/rejected, rewards/margins, rewards/accuracies, as trl names them
  Json fingerprint() const override;

 private:
  // log p of both answers of each pair: [pairs, 2] float64.
  struct Scored;
  Scored score(const MicroBatch& batch) const;

  const nn::Model& model_;
  const data::Dataset& dataset_;
  LanguageModelingOptions options_;
  PreferenceOptions preference_;
  std::vector<double> reference_;  // by example
  double chosen_ = 0, rejected_ = 0, right_ = 0;
  int64_t pairs_ = 0;
};

}  // namespace frugal::train
