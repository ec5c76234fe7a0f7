#include <ATen/ATen.h>

#include "base/error.h"
#include "nn/linear.h"

namespace frugal::nn {

LowRankKind::LowRankKind(std::shared_ptr<LinearKind> first, std::shared_ptr<LinearKind> second) : first_(std::move(first)), second_(std::move(second)) {
  FRUGAL_ASSERT(first_ && second_ && first_->out_features() == second_->in_features());
}

Tensor LowRankKind::forward(const Activation& input) const { return second_->forward(Activation(first_->forward(input))); }

Tensor LowRankKind::dense() const { return at::matmul(second_->dense(), first_->dense()); }

std::string LowRankKind::describe() const { return fmt::format("rank {} ({} x {})", first_->out_features(), second_->describe(), first_->describe()); }

void LowRankKind::set_execution(Execution execution) {
  first_->set_execution(execution);
  second_->set_execution(execution);
}

void LowRankKind::for_each_tensor(const std::string& prefix, const TensorVisitor& visit) {
  first_->for_each_tensor(prefix + ".first", visit);
  second_->for_each_tensor(prefix + ".second", visit);
}

}  // namespace frugal::nn
