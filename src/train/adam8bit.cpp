// 8-bit Optimizers via Block-wise Quantization (Dettmers et al., 2021): AdamW whose two moments are kept in one byte a number. In
// blocks of 256 numbers, each over the largest of its block is replaced by the nearest of 256 values of dynamic tree quantization:
// exponents of ten down to 1e-7 with ever fewer bits for the fraction; the second moment's have no sign.
//
// As bitsandbytes: tensors of fewer than 4096 numbers keep float32. State: 2.03 bytes a parameter, a quarter of AdamW's. Cost: one
// pass over 12 bytes read and 6 written a parameter; two table look-ups to decode and two to encode.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "train/adamw.h"
#include "train/optimizer_rows.h"

namespace frugal::train {
namespace {

constexpr int64_t kBlock = 256, kSmall = 4096;

// The values, ascending, and the nearest of them for a number of -1..1.
class DynamicCode {
 public:
  explicit DynamicCode(bool has_sign) {
    size_t count = 0;
    for (int exponent = 0; exponent < 7; ++exponent) {
      const int fractions = has_sign ? 1 << exponent : 2 << exponent;
      const float power = static_cast<float>(std::pow(10.0, exponent - 6));
      for (int i = 0; i < fractions; ++i) {
        const float mean = (boundary(i, fractions) + boundary(i + 1, fractions)) / 2;
        values_[count++] = power * mean;
        if (has_sign) values_[count++] = -power * mean;
      }
    }
    values_[count++] = 0;
    values_[count++] = 1;
    FRUGAL_ASSERT(count == values_.size());
    std::sort(values_.begin(), values_.end());
    for (size_t i = 0; i + 1 < values_.size(); ++i) middles_[i] = (values_[i] + values_[i + 1]) / 2;
    middles_.back() = std::numeric_limits<float>::infinity();
    make_first();
  }

  float decode(uint8_t code) const { return values_[code]; }
  // Of numbers of -1..1; count is at most a block.
  void encode(const float* numbers, int64_t count, uint8_t* codes) const {
    int32_t keys[kBlock];
    for (int64_t i = 0; i < count; ++i) {
      const int32_t bits = std::bit_cast<int32_t>(numbers[i]);
      keys[i] = std::min((bits & 0x7fffffff) >> 16, kLastKey) + (bits < 0 ? kNegative : 0);
    }
    for (int64_t i = 0; i < count; ++i) {
      const uint8_t code = first_[keys[i]];
      codes[i] = code + (numbers[i] > middles_[code]);
    }
  }

 private:
  // Of linspace(0.1, 1, parts + 1) in float32: from both ends, as torch.
  static float boundary(int i, int parts) {
    const float step = (1.0f - 0.1f) / static_cast<float>(parts);
    return i < (parts + 1) / 2 ? 0.1f + step * static_cast<float>(i) : 1.0f - step * static_cast<float>(parts - i);
  }

  // By the upper bits of a number's size (its exponent and 7 bits of fraction) up to 1, and its sign: the code of the numbers with
  // these bits, or one less, since no two middles share them.
  void make_first() {
    for (int32_t key = 0; key <= kLastKey; ++key) {
      const float low = std::bit_cast<float>(key << 16), high = std::bit_cast<float>((key + 1) << 16);
      first_[key] = static_cast<uint8_t>(std::lower_bound(middles_.begin(), middles_.end(), low) - middles_.begin());
      first_[kNegative + key] = static_cast<uint8_t>(std::upper_bound(middles_.begin(), middles_.end(), -high) - middles_.begin());
      const auto inside = [&](float from, float to) { return std::count_if(middles_.begin(), middles_.end(), [=](float x) { return from <= x && x < to; }); };
      FRUGAL_ASSERT(inside(low, high) <= 1 && inside(-high, -low) <= 1);
    }
  }

  static constexpr int32_t kLastKey = 0x3F80, kNegative = 0x4000;  // 1.0
  std::array<float, 256> values_, middles_;
  std::array<uint8_t, 2 * kNegative> first_;
};

struct State {
  at::Tensor step, state1, state2, absmax1, absmax2;
  AdamState small;
  StateTensors tensors() {
    StateTensors all = small.tensors();
    all.insert(all.end(), {{"step", &step}, {"state1", &state1}, {"state2", &state2}, {"absmax1", &absmax1}, {"absmax2", &absmax2}});
    return all;
  }
};

// A moment, and a block of it: decoded, brought up to date by the caller, encoded.
struct Moment {
  const DynamicCode& code;
  uint8_t* bytes;
  float* absmax;

  Moment block(int64_t index) const { return {code, bytes + index * kBlock, absmax + index}; }
  void decode(float* numbers, int64_t count) const {
    const float scale = *absmax;
    for (int64_t i = 0; i < count; ++i) numbers[i] = code.decode(bytes[i]) * scale;
  }
  void encode(float* numbers, int64_t count) const {  // which are divided by the largest
    // Numbers without sign are ordered as their bits are, and the compiler makes vectors of integers.
    int32_t largest = 0;
    for (int64_t i = 0; i < count; ++i) largest = std::max(largest, std::bit_cast<int32_t>(numbers[i]) & 0x7fffffff);
    *absmax = std::bit_cast<float>(largest);
    const float scale = 1 / std::max(*absmax, 1e-38f);
    for (int64_t i = 0; i < count; ++i) numbers[i] *= scale;
    code.encode(numbers, count, bytes);
  }
};

class Adam8bit : public PerParameter<State> {
 public:
  Adam8bit(std::vector<Parameter> parameters, const Options& options) : PerParameter(std::move(parameters)), settings_(AdamSettings::of(options)) {
    for (const Parameter& parameter : parameters_) {
      const int64_t count = parameter.tensor.numel();
      State state;
      if (count < kSmall) {
        state.small = AdamState(parameter.tensor.sizes());
      } else {
        const int64_t blocks = (count + kBlock - 1) / kBlock;
        state.step = zeros({});
        for (at::Tensor* bytes : {&state.state1, &state.state2}) *bytes = zeros(parameter.tensor.sizes(), at::kByte);
        for (at::Tensor* absmax : {&state.absmax1, &state.absmax2}) *absmax = zeros({blocks});
      }
      states_.push_back(state);
    }
  }

 private:
  void update(const Parameter& parameter, const at::Tensor& gradient, State& state, double learning_rate) override {
    AdamSettings settings = settings_;
    settings.weight_decay = decay_of(parameter, settings.weight_decay);
    if (state.small.step.defined()) return adamw_update(parameter.tensor, gradient, state.small, settings, learning_rate);

    const double step = increment(state.step);
    const float correction = std::sqrt(1 - std::pow(settings.beta2, step)), eps = settings.eps;
    const float rate = learning_rate / (1 - std::pow(settings.beta1, step)), keep = 1 - learning_rate * settings.weight_decay;
    const float old1 = settings.beta1, new1 = 1 - settings.beta1, old2 = settings.beta2, new2 = 1 - settings.beta2;
    static const DynamicCode with_sign(true), without_sign(false);
    const int64_t count = gradient.numel();
    const Moment all1{with_sign, state.state1.mutable_data_ptr<uint8_t>(), state.absmax1.mutable_data_ptr<float>()};
    const Moment all2{without_sign, state.state2.mutable_data_ptr<uint8_t>(), state.absmax2.mutable_data_ptr<float>()};
    float* const weights = parameter.tensor.mutable_data_ptr<float>();
    const float* const gradients = gradient.const_data_ptr<float>();
    parallel_for(state.absmax1.numel(), 64, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t first = block * kBlock, length = std::min(kBlock, count - first);
        float* __restrict w = weights + first;
        const float* __restrict g = gradients + first;
        const Moment one = all1.block(block), two = all2.block(block);
        float m[kBlock], v[kBlock];
        one.decode(m, length);
        two.decode(v, length);
        for (int64_t i = 0; i < length; ++i) {
          m[i] = old1 * m[i] + new1 * g[i];
          v[i] = old2 * v[i] + new2 * g[i] * g[i];
          w[i] = w[i] * keep - rate * (m[i] / (std::sqrt(v[i]) / correction + eps));
        }
        one.encode(m, length);
        two.encode(v, length);
      }
    });
  }

  AdamSettings settings_;
};

}  // namespace

OptimizerRow adam8bit_row() {
  OptimizerRow row;
  row.id = "adam8bit";
  row.title = "8-bit AdamW";
  row.leaf = "train";
  row.arxiv = "2110.02861";
  row.summary = "AdamW with both moments in a byte a number: a quarter of its state";
  row.options = adamw_row().options;
  row.function = make_optimizer<Adam8bit>;
  row.claims = {loss_against_adamw("loss within 0.5 % of AdamW's after the same steps", {"adam8bit"}, {1e-3, 2e-3, 4e-3}, 1.005),
                state_against_adamw("a quarter of AdamW's state, and 2 % for scales and small tensors", "adam8bit", 0.27)};
  return row;
}

}  // namespace frugal::train
