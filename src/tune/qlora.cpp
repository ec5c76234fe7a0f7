// QLoRA (arXiv 2305.14314): LoRA beside a base in NormalFloat 4 with double quantization, decoded at each use:
//   y = dequantize(c1, c2, W_NF4) x + alpha / r * B A x        (equations 5 and 6)
// The gradient passes through the decoded weight and reaches A and B only.
//
// What differs: a base that is quantized already (a GGUF of 4 bits) stays in its own format instead of being rounded twice. There are no paged optimizers
// (section 3): they move optimizer states between GPU and host memory, and here there is only the latter.
// Cost: 4.127 bits a weight of the base; a decoded matrix at a time, twice a step.
#include "tune/qlora.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "base/file.h"
#include "nn/nf4_kind.h"
#include "nn/sharing.h"
#include "tune/adapter_sites.h"

namespace frugal::tune {
namespace {

std::unique_ptr<Adapter> run(nn::Model& model, const Options& options, const AttachContext& context) {
  quantize_base(model);
  return attach_new(model, lora_config(options), "qlora", context.seed);
}

}  // namespace

FourBitReport quantize_base(nn::Model& model, bool double_quantized) {
  const at::NoGradGuard no_grad;
  FourBitReport report;
  const nn::Sharing sharing = nn::sharing_of(model.spec);
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    for (nn::Linear* linear : nn::own_linears(model.blocks[i], i, sharing)) {
      const auto* dense = dynamic_cast<const nn::DenseKind*>(linear->kinds().front().get());
      if (linear->kinds().size() > 1 || !dense) {
        ++report.kept;
        continue;
      }
      const Tensor stored = dense->weight(), weight = dense->dense();
      linear->replace(std::make_shared<nn::Nf4Kind>(
          formats::encode_nf4(weight.const_data_ptr<float>(), weight.size(0), weight.size(1), {.double_quantized = double_quantized})));
      release_mapped({static_cast<const std::byte*>(stored.const_data_ptr()), stored.nbytes()});
      ++report.quantized;
    }
  }
  nn::share_weights(model);
  return report;
}

AdapterRow qlora_row() {
  AdapterRow row;
  row.id = "qlora";
  row.title = "QLoRA";
  row.leaf = "tune";
  row.arxiv = "2305.14314";
  row.summary = "LoRA beside a base in NF4 with double quantization, decoded at each use";
  row.options = lora_options();
  row.function = run;
  row.claims = {{.statement = "loss after tuning within 1 % of LoRA's on the float base",
                 .model = "T",
                 .baseline = {"lora"},
                 .method = {"qlora"},
                 .metric = "loss",
                 .factor = 1.01,
                 .training = {.steps = 60, .batch_size = 4, .text = "faq", .baseline_rates = {1e-3, 3e-3, 1e-2}, .method_rates = {1e-3, 3e-3, 1e-2}}}};
  return row;
}

}  // namespace frugal::tune
