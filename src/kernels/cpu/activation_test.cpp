#include "kernels/cpu/activation.h"

#include "base/error.h"
#include "kernels/cpu/float_matmul.h"
#include "kernels/cpu/half.h"
#include "kernels/cpu/kernel_test_support.h"

namespace frugal::kernels {
namespace {

class ActivationTest : public KernelTest {};

double ulp_of(double value) {
  const auto rounded = static_cast<float>(value);
  return static_cast<double>(std::nextafter(rounded, INFINITY)) - static_cast<double>(rounded);
}

TEST_P(ActivationTest, ExpIsWithinTwoUlp) {
  std::vector<float> x, y;
  for (float v = -87; v <= 88; v += slow() ? 0.01f : 0.001f) x.push_back(v);
  x.push_back(0);
  y.resize(x.size());
  exponential(x.data(), y.data(), static_cast<int64_t>(x.size()));
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = std::exp(static_cast<double>(x[i]));
    worst = std::max(worst, std::abs(y[i] - exact) / ulp_of(exact));
  }
  EXPECT_LE(worst, 2.0);
  EXPECT_EQ(y.back(), 1.0f);
  RecordProperty("worst_ulp", std::to_string(worst));
}

TEST_P(ActivationTest, ExpOfExtremes) {
  const float x[] = {-INFINITY, INFINITY, std::nanf(""), -88, -1e30f, 89, 1e30f, 88.7f};
  float y[8];
  exponential(x, y, 8);
  EXPECT_EQ(y[0], 0.0f);
  EXPECT_EQ(y[1], INFINITY);
  EXPECT_TRUE(std::isnan(y[2]));
  EXPECT_EQ(y[3], 0.0f);
  EXPECT_EQ(y[4], 0.0f);
  EXPECT_EQ(y[5], INFINITY);
  EXPECT_EQ(y[6], INFINITY);
  EXPECT_NEAR(y[7] / std::exp(88.7), 1.0, 1e-5);
}

double reference(GateKind kind, double x) {
  switch (kind) {
    case GateKind::silu: return x / (1 + std::exp(-x));
    case GateKind::gelu_tanh: return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case GateKind::gelu_erf: return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case GateKind::relu: return x > 0 ? x : 0;
  }
  return 0;
}

TEST_P(ActivationTest, GradientsOfGatedActivationsEqualFiniteDifferencesInDouble) {
  for (const GateKind kind : {GateKind::silu, GateKind::gelu_tanh}) {
    for (const int64_t columns : {1, 9, 67}) {
      const int64_t rows = 3, count = rows * columns;
      Guarded<float> gate(count), up(count), gradient(count), by_gate(count), by_up(count);
      fill_normal(gate, rng_, 3);
      fill_normal(up, rng_);
      fill_normal(gradient, rng_);
      gated_activation_backward({gate.data(), up.data(), gradient.data(), by_gate.data(), by_up.data(), rows, columns}, kind);
      ASSERT_TRUE(by_gate.intact() && by_up.intact());
      for (int64_t i = 0; i < count; ++i) {
        const double slope = (reference(kind, gate[i] + 1e-5) - reference(kind, gate[i] - 1e-5)) / 2e-5,
                     scale = std::abs(gradient[i] * static_cast<double>(up[i]));
        ASSERT_NEAR(by_gate[i], gradient[i] * static_cast<double>(up[i]) * slope, 2e-6 * scale + 1e-12) << gate[i];
        ASSERT_NEAR(by_up[i], gradient[i] * reference(kind, gate[i]), 2e-6 * std::abs(gradient[i]) * (1e-3 + std::abs(gate[i])));
      }
    }
  }
  EXPECT_THROW(gated_activation_backward({}, GateKind::relu), Error);
}

TEST_P(ActivationTest, GatedActivationsEqualTheirDefinitions) {
  for (const GateKind kind : {GateKind::silu, GateKind::gelu_tanh, GateKind::gelu_erf, GateKind::relu}) {
    for (const int64_t columns : {1, 9, 64, 1537}) {
      const int64_t rows = 3, stride = columns + 3;
      Guarded<float> gate(rows * stride), up(rows * stride), out(rows * stride, 5.0f);
      fill_normal(gate, rng_, 4);
      fill_normal(up, rng_);
      for (const bool with_up : {true, false}) {
        GateRows r{gate.data(), stride, with_up ? up.data() : nullptr, stride, out.data(), stride, rows, columns};
        gated_activation(r, kind);
        ASSERT_TRUE(out.intact());
        for (int64_t row = 0; row < rows; ++row) {
          for (int64_t c = 0; c < columns; ++c) {
            const int64_t i = row * stride + c;
            const double factor = with_up ? up[i] : 1;
            ASSERT_NEAR(out[i], reference(kind, gate[i]) * factor, (2e-6 + 2e-6 * std::abs(gate[i])) * (0.01 + std::abs(factor))) << gate[i];
          }
          ASSERT_EQ(out[row * stride + columns], 5.0f);
        }
      }
    }
  }
}

TEST_P(ActivationTest, SoftmaxAndLogSoftmaxEqualDoubleSums) {
  for (const int64_t columns : {1, 5, 16, 1000, 49152}) {
    if (columns > 2000 && slow()) continue;
    const int64_t rows = columns > 2000 ? 1 : 3;
    Guarded<float> x(rows * columns), p(rows * columns), log_p(rows * columns);
    fill_normal(x, rng_, 6);
    softmax(x.data(), p.data(), rows, columns);
    log_softmax(x.data(), log_p.data(), rows, columns);
    ASSERT_TRUE(p.intact() && log_p.intact());
    for (int64_t row = 0; row < rows; ++row) {
      double maximum = -INFINITY, sum = 0;
      for (int64_t c = 0; c < columns; ++c) maximum = std::max(maximum, static_cast<double>(x[row * columns + c]));
      for (int64_t c = 0; c < columns; ++c) sum += std::exp(x[row * columns + c] - maximum);
      for (int64_t c = 0; c < columns; ++c) {
        const double expected = x[row * columns + c] - maximum - std::log(sum);
        ASSERT_NEAR(log_p[row * columns + c], expected, 1.5e-7 * (1 + std::abs(expected)));
        // 2 ulp of exp and the rounding of x - maximum, which exp turns into a relative error.
        const double relative = 4e-7 + 6e-8 * (maximum - x[row * columns + c]);
        ASSERT_NEAR(p[row * columns + c], std::exp(expected), relative * std::exp(expected) + 1e-37);
      }
    }
  }
}

TEST_P(ActivationTest, RowsOfMinusInfinityAndMaskedEntries) {
  std::vector<float> x(20, -INFINITY), p(20), log_p(20);
  softmax(x.data(), p.data(), 1, 20);
  log_softmax(x.data(), log_p.data(), 1, 20);
  for (const float v : p) EXPECT_EQ(v, 0.0f);
  for (const float v : log_p) EXPECT_EQ(v, -INFINITY);
  x[3] = 2;
  softmax(x.data(), p.data(), 1, 20);
  EXPECT_EQ(p[3], 1.0f);
  EXPECT_EQ(p[4], 0.0f);
}

TEST_P(ActivationTest, HalvesConvertAsTheDefinitionSays) {
  const KernelTable& table = kernels();
  // Every half read by the kernels, as a product with unit vectors (infinities and NaNs, which 0 does not cancel, apart).
  std::vector<uint16_t> all(65536), back(65536);
  std::vector<float> values(65536), units(16 * 16), columns(65536);
  for (int i = 0; i < 65536; ++i) all[static_cast<size_t>(i)] = ((i >> 10) & 31) == 31 ? uint16_t{0} : static_cast<uint16_t>(i);
  for (size_t i = 0; i < 16; ++i) units[i * 17] = 1;
  matmul_float({.data = all.data(), .type = FloatType::f16, .rows = 4096, .columns = 16}, {.x = units.data(), .tokens = 16, .out = columns.data()});
  for (int i = 0; i < 65536; ++i) {
    const int exponent = (i >> 10) & 31, mantissa = i & 1023;
    if (exponent == 31) continue;
    float& value = values[static_cast<size_t>(i)];
    value = half_to_float(static_cast<uint16_t>(i));
    const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    ASSERT_EQ(value, (i & 0x8000) != 0 ? -magnitude : magnitude) << i;
    ASSERT_EQ(columns[static_cast<size_t>(i % 16 * 4096 + i / 16)], value) << i;
  }
  table.to_f16(values.data(), back.data(), 65535);
  for (int i = 0; i < 65535; ++i) {
    if (((i >> 10) & 31) == 31) continue;
    ASSERT_EQ(back[static_cast<size_t>(i)], i);
  }
  // Between two halves: to the nearest, ties to the even one.
  for (int n = 0; n < 2000; ++n) {
    const auto low = static_cast<uint16_t>(rng_.below(0x7bff));
    const double a = half_to_float(low), b = half_to_float(static_cast<uint16_t>(low + 1));
    const double fraction = n % 4 == 0 ? 0.5 : rng_.uniform();
    const auto x = static_cast<float>(a + fraction * (b - a));
    const double middle = (a + b) / 2;
    const uint16_t expected = x < middle || (x == middle && low % 2 == 0) ? low : static_cast<uint16_t>(low + 1);
    uint16_t result;
    table.to_f16(&x, &result, 1);
    ASSERT_EQ(result, expected) << x;
    ASSERT_EQ(float_to_half(x), expected) << x;
  }
}

FRUGAL_FOR_EACH_SET(ActivationTest);

}  // namespace
}  // namespace frugal::kernels
