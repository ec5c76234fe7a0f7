#include "ops/autocast.h"

#include "base/error.h"

namespace frugal::ops {
namespace {

thread_local at::ScalarType current = at::kFloat;

}  // namespace

Autocast::Autocast(at::ScalarType type) : before_(current) {
  FRUGAL_ASSERT(type == at::kFloat || type == at::kBFloat16 || type == at::kHalf);
  current = type;
}

Autocast::~Autocast() { current = before_; }

at::ScalarType activation_type() { return current; }

at::ScalarType activation_type(const at::Tensor& x) { return x.scalar_type() == at::kFloat ? current : x.scalar_type(); }

}  // namespace frugal::ops
