#include "quantize/quantize_table.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "method_rows.h"
#include "quantize/smoothquant.h"

namespace frugal::quantize {
namespace {

using testing::fresh_seed;
using testing::RandomModel;
using testing::relative_error;

TEST(QuantizeTable, EveryRowIsComplete) {
  testing::check_rows(quantize_rows(), "quantize", {"rtn", "gptq", "awq", "hqq", "spqr", "w8a8-dynamic", "smoothquant", "qat-ste", "tsld"});
}

TEST(QuantizeTable, EveryRowRunsOnDenseMaskedAndFactoredWeightsOfAnyShape) { testing::run_every_row(quantize_rows(), fresh_seed()); }

TEST(QuantizeTable, EveryOptionOfGptqRuns) {
  Rng rng(fresh_seed());
  const chain::StepTable table(quantize_rows());
  for (const char* step : {"gptq:bits=8,group=0", "gptq:bits=8,group=7,order=activation", "gptq:bits=8,symmetric=true,search=true"}) {
    RandomModel model(rng);
    const Tensor before = model.logits();
    model.run(table, {step});
    EXPECT_LT(relative_error(model.logits(), before), 0.1) << step;
  }
}

TEST(SmoothQuant, LeavesTheFunctionOfTheModelUnchanged) {
  Rng rng(fresh_seed());
  for (int trial = 0; trial < 3; ++trial) {
    RandomModel model(rng);
    const Tensor before = model.logits(), weight = model.loaded.model->blocks[0].gate.dense().clone();
    model.run(chain::StepTable(quantize_rows()), {"smoothquant:alpha=0.7"});
    EXPECT_LT(relative_error(model.logits(), before), 1e-5);
    EXPECT_GT(relative_error(model.loaded.model->blocks[0].gate.dense(), weight), 0.05);
  }
}

TEST(SmoothQuant, ScaleIsThatOfTheFormula) {
  const Tensor activations = at::tensor({4.0f, 0.0f, 9.0f}), a = at::tensor({1.0f, 2.0f, -2.0f, -3.0f, 5.0f, 0.0f}).view({2, 3});
  const Tensor b = at::tensor({-4.0f, 1.0f, 1.0f}).view({1, 3});
  const Tensor scale = smoothing_scale(activations, {a, b}, 0.5);
  EXPECT_NEAR(scale[0].item<float>(), std::sqrt(4.0f) / std::sqrt(4.0f), 1e-6);
  EXPECT_EQ(scale[1].item<float>(), 1.0f);  // never active
  EXPECT_NEAR(scale[2].item<float>(), std::sqrt(9.0f) / std::sqrt(2.0f), 1e-6);
}

}  // namespace
}  // namespace frugal::quantize
