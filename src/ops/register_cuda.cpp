// The operators for tensors on an NVIDIA GPU: kernels/cuda where nvcc was there at build time and no gradient is wanted, else the
// definition from ATen operators, which any device runs. Never run on a GPU so far (kernels/cuda/operators.h).
#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/library.h>

#include "base/error.h"
#include "ops/registered.h"
#ifdef FRUGAL_CUDA
#include "kernels/cuda/operators.h"
#endif

namespace frugal::ops {
namespace {

#ifdef FRUGAL_CUDA
namespace cuda = kernels::cuda;

bool runs_kernel(std::initializer_list<Tensor> tensors) {
  if (wants_gradient(tensors)) return false;
  const Tensor& first = *tensors.begin();
  for (const Tensor& tensor : tensors) {
    if (tensor.device() != first.device() || tensor.scalar_type() != at::kFloat) return false;
  }
  return true;
}

// The current stream of a device through c10's own interface, so that the library needs no CUDA build of libtorch to link.
class Launch {
 public:
  explicit Launch(const Tensor& on) : guard_(on.device()) {
    const c10::impl::VirtualGuardImpl device(c10::DeviceType::CUDA);
    stream_ = device.getStream(on.device()).native_handle();
  }
  void* stream() const { return stream_; }
  static void check(const char* error, const char* what) {
    if (error) fail(ErrorKind::internal, "{}: {}", what, error);
  }

 private:
  at::AutoDispatchBelowADInplaceOrView below_autograd_;
  c10::DeviceGuard guard_;
  void* stream_;
};

const float* data(const Tensor& tensor) { return tensor.const_data_ptr<float>(); }

#endif

Tensor cuda_rms_norm(const Tensor& x, const Tensor& weight, double eps, double weight_offset) {
#ifdef FRUGAL_CUDA
  if (runs_kernel({x, weight}) && weight.dim() == 1 && weight.size(0) > 0 && x.size(-1) == weight.size(0)) {
    const Launch launch(x);
    const Tensor input = x.contiguous(), scale = weight.contiguous();
    Tensor out = at::empty_like(input);
    Launch::check(cuda::rms_norm(data(input), data(scale), out.mutable_data_ptr<float>(), x.numel() / weight.size(0), weight.size(0), static_cast<float>(eps),
                                 static_cast<float>(weight_offset), launch.stream()),
                  "rms_norm");
    return out;
  }
#endif
  return rms_norm_reference(x, weight, eps, weight_offset);
}

Tensor cuda_rope(const Tensor& x, const Tensor& positions, const Tensor& cos, const Tensor& sin) {
#ifdef FRUGAL_CUDA
  if (runs_kernel({x, cos, sin}) && x.dim() == 3 && cos.dim() == 2 && cos.sizes() == sin.sizes() && 2 * cos.size(1) <= x.size(2) &&
      positions.numel() == x.size(0) && positions.device() == x.device() && positions.scalar_type() == at::kLong) {
    const Launch launch(x);
    const Tensor input = x.contiguous(), index = positions.contiguous(), cosines = cos.contiguous(), sines = sin.contiguous();
    Tensor out = at::empty_like(input);
    Launch::check(cuda::rope(data(input), index.const_data_ptr<int64_t>(), data(cosines), data(sines), out.mutable_data_ptr<float>(),
                             {.tokens = x.size(0), .heads = x.size(1), .head_dim = x.size(2), .half = cos.size(1)}, launch.stream()),
                  "rope");
    return out;
  }
#endif
  return rope_reference(x, positions, cos, sin);
}

Tensor cuda_gated_activation(const Tensor& gate, const Tensor& up, std::string_view kind) {
  const Gate function = gate_of(kind);
#ifdef FRUGAL_CUDA
  if (runs_kernel({gate, up}) && gate.sizes() == up.sizes()) {
    const Launch launch(gate);
    const Tensor g = gate.contiguous(), u = up.contiguous();
    Tensor out = at::empty_like(g);
    Launch::check(cuda::gated_activation(data(g), data(u), out.mutable_data_ptr<float>(), g.numel(), function == Gate::gelu_tanh, launch.stream()),
                  "gated_activation");
    return out;
  }
#endif
  return gated_activation_reference(gate, up, function);
}

Tensor cuda_attention(const Tensor& q, const Tensor& k, const Tensor& v, at::IntArrayRef lengths, double scale, int64_t window) {
  const std::vector<AttentionRange> ranges = ranges_of(q, lengths);
#ifdef FRUGAL_CUDA
  if (runs_kernel({q, k, v}) && q.dim() == 3 && k.dim() == 3 && k.sizes() == v.sizes() && k.size(0) == q.size(0) && k.size(2) == q.size(2) &&
      q.size(2) <= cuda::kMaxDim && k.size(1) > 0 && q.size(1) % k.size(1) == 0) {
    const Launch launch(q);
    Tensor first = at::empty({q.size(0)}, at::kLong);
    for (const AttentionRange& range : ranges) first.narrow(0, range.begin, range.count).fill_(range.begin);
    first = first.to(q.device());
    const Tensor queries = q.contiguous(), keys = k.contiguous(), values = v.contiguous();
    Tensor out = at::empty_like(queries);
    Launch::check(cuda::attention(
                      data(queries), data(keys), data(values), first.const_data_ptr<int64_t>(), out.mutable_data_ptr<float>(),
                      {.tokens = q.size(0), .heads = q.size(1), .kv_heads = k.size(1), .dim = q.size(2), .window = window, .scale = static_cast<float>(scale)},
                      launch.stream()),
                  "attention");
    return out;
  }
#endif
  return attention_reference(q, k, v, ranges, {scale, window});
}

Tensor cuda_grouped_linear(const Tensor& x, const Tensor& codes, const Tensor& scales, const std::optional<Tensor>& zeros, int64_t bits, int64_t group_size) {
  const GroupedTensors weight = {codes, scales, zeros, bits, group_size};
#ifdef FRUGAL_CUDA
  check_grouped(x, weight);
  if (runs_kernel({x, scales, zeros.value_or(scales)}) && codes.device() == x.device()) {
    constexpr int64_t kFewTokens = 8;  // more: the weight is decoded once, for cuBLAS
    const Launch launch(x);
    const Tensor input = x.contiguous(), words = codes.contiguous(), factors = scales.contiguous(), offsets = zeros ? zeros->contiguous() : Tensor();
    const cuda::Grouped grouped = {.codes = reinterpret_cast<const uint32_t*>(words.const_data_ptr<int32_t>()),
                                   .scales = data(factors),
                                   .zeros = zeros ? data(offsets) : nullptr,
                                   .rows = codes.size(0),
                                   .columns = x.size(1),
                                   .group_size = group_size,
                                   .bits = static_cast<int>(bits)};
    const bool few = x.size(0) <= kFewTokens;
    Tensor out = at::empty(few ? at::IntArrayRef({x.size(0), codes.size(0)}) : at::IntArrayRef({codes.size(0), x.size(1)}), x.options());
    float* const values = out.mutable_data_ptr<float>();
    Launch::check(few ? cuda::grouped_linear(grouped, data(input), values, x.size(0), launch.stream()) : cuda::grouped_decode(grouped, values, launch.stream()),
                  "grouped_linear");
    return few ? out : at::linear(input, out);
  }
#endif
  return grouped_linear(x, weight);
}

void register_all(torch::Library& library) {
  library.impl("rms_norm", cuda_rms_norm);
  library.impl("rope", cuda_rope);
  library.impl("gated_activation", cuda_gated_activation);
  library.impl("attention", cuda_attention);
  library.impl("grouped_linear", cuda_grouped_linear);
}

}  // namespace

TORCH_LIBRARY_IMPL(frugal, CUDA, library) { register_all(library); }
// The bodies see to gradients themselves; without this, torch would take an operator with a CUDA body for one that has none.
TORCH_LIBRARY_IMPL(frugal, AutogradCUDA, library) { register_all(library); }

}  // namespace frugal::ops
