#include "prune/magnitude.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "method_rows.h"

namespace frugal::prune {
namespace {

TEST(Magnitude, DropsTheSmallestWeightsOfEachMatrixAndKeepsTheOthersValues) {
  Rng rng(testing::fresh_seed());
  nn::LoadedModel loaded;
  loaded.model = std::make_shared<nn::Model>(testing::tiny_model({.intermediate = rng.between(30, 90)}));
  std::vector<at::Tensor> before;
  loaded.model->for_each_linear([&](nn::Linear& linear) { before.push_back(linear.dense().clone()); });
  const chain::StepTable table({magnitude_row()});
  chain::Workbench bench(loaded, {}, {}, 1);
  chain::run_chain(bench, chain::parse_chain(table, {"magnitude:sparsity=0.6"}));
  size_t index = 0;
  loaded.model->for_each_linear([&](nn::Linear& linear) {
    const at::Tensor original = before[index++], pruned = linear.dense();
    std::vector<float> magnitudes(original.const_data_ptr<float>(), original.const_data_ptr<float>() + original.numel());
    for (float& value : magnitudes) value = std::abs(value);
    std::sort(magnitudes.begin(), magnitudes.end());
    const auto drop = static_cast<size_t>(0.6 * static_cast<double>(magnitudes.size()) + 1e-9);
    const at::Tensor kept = original.abs().ge(magnitudes[drop]);
    EXPECT_TRUE(at::equal(pruned.ne(0), kept)) << linear.name();
    EXPECT_TRUE(at::allclose(pruned, original * kept, 1e-3, 1e-6)) << linear.name();  // values are stored in float16
  });
}

}  // namespace
}  // namespace frugal::prune
