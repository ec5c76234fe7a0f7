// Dynamic loss scaling of float16 training (arXiv 1710.03740, section 3.2), as torch.amp.GradScaler has it: the loss is multiplied so that small gradients
// do not vanish; where one overflows, the step is left out and the scale halved, after 2,000 steps without it is doubled.
#pragma once

#include <vector>

#include "base/json.h"
#include "train/parameter.h"

namespace frugal::train {

class GradScaler {
 public:
  static constexpr double kInitialScale = 65536, kGrowthFactor = 2, kBackoffFactor = 0.5;
  static constexpr int64_t kGrowthInterval = 2000;

  double scale() const { return scale_; }
  // Divides the gradients by the scale; false if one is not finite.
  bool unscale(const std::vector<Parameter>& parameters) const;
  // After each step: all of its gradients were `finite`.
  void update(bool finite);

  Json state() const;                  // torch's names
  void load(const JsonObject& state);  // Throws Error{corrupt_file}.

 private:
  double scale_ = kInitialScale;
  int64_t growth_tracker_ = 0;  // steps since the scale changed
};

}  // namespace frugal::train
