// LoRA-FA (arXiv 2308.03303, section 3): LoRA whose A stays as it was drawn. Only A x, of rank r, is kept for the backward instead of the
// whole input x: the activation bytes of each module fall from in to r numbers a token.
#include "tune/lora_fa.h"

#include "tune/adapter_sites.h"

namespace frugal::tune {
namespace {

std::unique_ptr<Adapter> run(nn::Model& model, const Options& options, const AttachContext& context) {
  return attach_new(model, lora_config(options), "lora-fa", context.seed, /*freeze_a=*/true);
}

}  // namespace

AdapterRow lora_fa_row() {
  AdapterRow row;
  row.id = "lora-fa";
  row.title = "LoRA-FA";
  row.leaf = "tune";
  row.arxiv = "2308.03303";
  row.summary = "LoRA with a frozen A: fewer activations to keep";
  row.options = lora_options();
  row.function = run;
  row.claims = {{.statement = "fewer bytes of activations are kept for backward than by LoRA",
                 .model = "S",
                 .baseline = {"lora"},
                 .method = {"lora-fa"},
                 .metric = "activation_bytes",
                 .training = {.batch_size = 1, .sequence_len = 256}}};
  return row;
}

}  // namespace frugal::tune
