// LoftQ (arXiv 2310.08659, algorithm 1): the weights are quantized and a LoRA fitted to what that loses, by turns: Q is W - B A to the nearest, then
// B A the best approximation of W - Q of the rank (its truncated singular value decomposition). The quantizer is the uniform grid of `rtn` (the
// paper's uniform case). The base is another model then: it is written beside the adapter, which is for it alone.
//
// Cost: a decomposition of each matrix and iteration, 4 out in min(out, in) and more.
#include "tune/loftq.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "base/progress.h"
#include "chain/grid.h"
#include "tune/adapter_sites.h"
#include "tune/target_modules.h"

namespace frugal::tune {
namespace {

struct Factors {
  Tensor a, b;  // [rank, in], [out, rank]
};

class FittedTensors : public AdapterTensors {
 public:
  Tensor take(const nn::Linear& linear, std::string_view part, at::IntArrayRef) override {
    const Factors& factors = fitted.at(linear.name());
    return part == ".lora_A.weight" ? factors.a : factors.b;
  }
  Tensor take_shared(std::string_view name, at::IntArrayRef) override { fail(ErrorKind::internal, "loftq has no tensor {}", name); }
  std::map<std::string, Factors> fitted;
};

Factors best_approximation(const Tensor& residual, int64_t rank) {
  const auto [u, s, vh] = at::linalg_svd(residual, /*full_matrices=*/false);
  const Tensor root = s.narrow(0, 0, rank).sqrt();
  return {(root.unsqueeze(1) * vh.narrow(0, 0, rank)).contiguous(), (u.narrow(1, 0, rank) * root).contiguous()};
}

std::unique_ptr<Adapter> run(nn::Model& model, const Options& options, const AttachContext& context) {
  const at::NoGradGuard no_grad;
  io::PeftConfig config = lora_config(options);
  require_known_targets(model, config, "loftq");
  const chain::GridSpec grid = chain::grid_spec(options);
  const TargetModules modules(config, "loftq");
  const std::vector<nn::Linear*> linears = modules.find(model);
  FittedTensors tensors;
  Progress progress("loftq", std::ssize(linears));
  for (nn::Linear* linear : linears) {
    progress.step(0);
    const Tensor weight = linear->dense().to(at::kFloat).contiguous();
    const int64_t rank = modules.rank(linear->name());
    if (rank > std::min(weight.size(0), weight.size(1)))
      fail(ErrorKind::invalid_input, "loftq: r {} is more than {} has: {} by {}", rank, linear->name(), weight.size(0), weight.size(1));
    Factors factors;
    formats::GroupedWeight quantized;
    for (int64_t i = 0; i < options.integer("iterations"); ++i) {
      const Tensor rest = i == 0 ? weight : weight - at::matmul(factors.b, factors.a);
      const chain::GridCodes codes = chain::round_to_grid(rest, {}, grid);
      factors = best_approximation(weight - codes.decode(), rank);
      quantized = codes.pack();
    }
    factors.b.div_(modules.scale(linear->name()));
    linear->replace(std::make_shared<nn::GroupedKind>(std::make_shared<formats::GroupedWeight>(std::move(quantized))));
    tensors.fitted[linear->name()] = std::move(factors);
    progress.step(1);
  }
  if (context.save_base) config.base_model = context.save_base();
  return attach(model, config, tensors, {.source = "loftq", .dropout_seed = context.seed + 1});
}

}  // namespace

AdapterRow loftq_row() {
  AdapterRow row;
  row.id = "loftq";
  row.title = "LoftQ";
  row.leaf = "tune";
  row.arxiv = "2310.08659";
  row.summary = "quantizes the weights and begins LoRA with what that loses";
  row.options = lora_options();
  for (OptionSpec& option : chain::grid_options(4)) row.options.push_back(std::move(option));
  row.options.push_back(integer_option("iterations", 5, 1, 1000, "how often both are fitted by turns"));
  row.function = run;
  row.reference = "its distance to the model, against rounding and LoRA's own beginning, is a test of src/tune";
  return row;
}

}  // namespace frugal::tune
