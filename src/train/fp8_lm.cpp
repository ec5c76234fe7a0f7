// FP8-LM: Training FP8 Large Language Models (Peng et al., 2023), section 2.2: AdamW on gradients in FP8 with the first moment in FP8 (E4M3) and the second in FP16,
// each tensor with a scale of its own, a power of two that keeps its largest number in range:
//   g <- e4m3(s_g g) / s_g,  m <- beta1 m / s_m + (1 - beta1) g,  v likewise with g^2,  w <- AdamW's step by m and v as they are,
//   s_m <- 2^floor(log2(448 / max |m|)),  m <- e4m3(s_m m),  s_v <- 2^floor(log2(65504 / max v)),  v <- fp16(s_v v)
// The second moment in FP8 loses small numbers, whose steps then explode (the paper's section 4.3); it is not offered.
//
// Where it differs: master weights stay float32 as everywhere here, not FP16 with a scale; .grad is float32 until the step, which takes its FP8 numbers (the
// paper's auto-scaling mu is of what is sent between processes, which stays float32); matrices are multiplied in float32 or bf16, for want of FP8 arithmetic.
// State: 3 bytes a parameter. Cost: three passes over the gradient.
#include <algorithm>
#include <cmath>

#include "formats/half.h"
#include "train/adamw.h"
#include "train/optimizer_rows.h"

namespace frugal::train {
namespace {

constexpr double kLargestE4m3 = 448, kLargestF16 = 65504;
constexpr int64_t kBlock = 1 << 14;  // numbers

struct State {
  at::Tensor step, exp_avg, exp_avg_sq, scales;  // scales: s_m, s_v
  StateTensors tensors() { return {{"step", &step}, {"exp_avg", &exp_avg}, {"exp_avg_sq", &exp_avg_sq}, {"scales", &scales}}; }
};

// The largest power of two that times `most` is no more than `range`.
float scale_for(float most, double range) {
  if (most == 0) return 1;
  return std::ldexp(1.0F, std::clamp(static_cast<int>(std::floor(std::log2(range / most))), -120, 120));
}

struct Largest {
  float first = 0, second = 0;
};

// body(begin, end) for blocks of fixed size on the compute team, and the largest of what they give.
template <typename Body>
Largest largest_of(int64_t count, const Body& body) {
  const int64_t blocks = (count + kBlock - 1) / kBlock;
  std::vector<Largest> each(static_cast<size_t>(blocks));
  parallel_for(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) each[static_cast<size_t>(block)] = body(block * kBlock, std::min(count, (block + 1) * kBlock));
  });
  Largest all;
  for (const Largest& one : each) all = {std::max(all.first, one.first), std::max(all.second, one.second)};
  return all;
}

class Fp8Lm : public PerParameter<State> {
 public:
  Fp8Lm(std::vector<Parameter> parameters, const Options& options) : PerParameter(std::move(parameters)), settings_(AdamSettings::of(options)) {
    for (const Parameter& parameter : parameters_) {
      const at::IntArrayRef shape = parameter.tensor.sizes();
      states_.push_back({zeros({}), zeros(shape, at::kByte), zeros(shape, at::kHalf), zeros({2})});
      std::fill_n(states_.back().scales.mutable_data_ptr<float>(), 2, 1.0F);
    }
  }

 private:
  void update(const Parameter& parameter, const at::Tensor& gradient, State& state, double learning_rate) override {
    const double step = increment(state.step);
    const float correction = std::sqrt(1 - std::pow(settings_.beta2, step)), eps = settings_.eps;
    const float rate = learning_rate / (1 - std::pow(settings_.beta1, step)), keep = 1 - learning_rate * decay_of(parameter, settings_.weight_decay);
    const float old1 = settings_.beta1, new1 = 1 - settings_.beta1, old2 = settings_.beta2, new2 = 1 - settings_.beta2;
    const float* const g = gradient.const_data_ptr<float>();
    float* const w = parameter.tensor.mutable_data_ptr<float>();
    uint8_t* const m = state.exp_avg.mutable_data_ptr<uint8_t>();
    auto* const v = static_cast<uint16_t*>(state.exp_avg_sq.mutable_data_ptr());
    float* const scales = state.scales.mutable_data_ptr<float>();

    const Largest of_gradient = largest_of(gradient.numel(), [&](int64_t begin, int64_t end) {
      Largest most;
      for (int64_t i = begin; i < end; ++i) most.first = std::max(most.first, std::abs(g[i]));
      return most;
    });
    const float scale = scale_for(of_gradient.first, kLargestE4m3), of_m = 1 / scales[0], of_v = 1 / scales[1];
    struct Moments {
      float m, v;
    };
    const auto moments = [=](int64_t i) {
      const float rounded = formats::f8e4m3_to_float(formats::float_to_f8e4m3(g[i] * scale)) / scale;
      return Moments{old1 * (formats::f8e4m3_to_float(m[i]) * of_m) + new1 * rounded, old2 * (formats::f16_to_float(v[i]) * of_v) + new2 * (rounded * rounded)};
    };
    const Largest of_moments = largest_of(gradient.numel(), [&](int64_t begin, int64_t end) {
      Largest most;
      for (int64_t i = begin; i < end; ++i) {
        const Moments now = moments(i);
        most = {std::max(most.first, std::abs(now.m)), std::max(most.second, now.v)};
        w[i] = w[i] * keep - rate * (now.m / (std::sqrt(now.v) / correction + eps));
      }
      return most;
    });
    scales[0] = scale_for(of_moments.first, kLargestE4m3);
    scales[1] = scale_for(of_moments.second, kLargestF16);
    const float to_m = scales[0], to_v = scales[1];
    for_each_number(gradient.numel(), [=](int64_t i) {
      const Moments now = moments(i);
      m[i] = formats::float_to_f8e4m3(now.m * to_m);
      v[i] = formats::float_to_f16(now.v * to_v);
    });
  }

  AdamSettings settings_;
};

}  // namespace

OptimizerRow fp8_lm_row() {
  OptimizerRow row;
  row.id = "fp8-lm";
  row.title = "FP8-LM's AdamW";
  row.leaf = "train";
  row.arxiv = "2310.18313";
  row.summary = "AdamW with gradients and first moment in FP8, the second in FP16, a scale for each tensor: 3 bytes of state a parameter";
  row.options = adamw_row().options;
  row.function = make_optimizer<Fp8Lm>;
  row.claims = {loss_against_adamw("loss within 1 % of AdamW's after the same steps", {"fp8-lm"}, {1e-3, 2e-3, 4e-3}, 1.01),
                state_against_adamw("three eighths of AdamW's state, and 1 % for scales", "fp8-lm", 0.38)};
  return row;
}

}  // namespace frugal::train
