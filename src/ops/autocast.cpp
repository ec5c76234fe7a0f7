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

at::ScalarType activation_type(const at::Tensor& x) {
  const at::ScalarType type = x.scalar_type();
  if (type != at::kFloat && type != at::kBFloat16 && type != at::kHalf) {
    fail(ErrorKind::internal, "activations must be float32, bfloat16 or float16, are {}", at::toString(type));
  }
  return type == at::kFloat ? current : type;
}

}  // namespace frugal::ops
