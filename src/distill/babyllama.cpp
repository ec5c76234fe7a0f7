// BabyLlama (arXiv 2308.02019): kd-forward from an ensemble, whose logits are averaged; alpha is here the teachers' weight, as for
// kd-forward (the paper's alpha is the labels').
#include "distill/distill_table.h"

namespace frugal::distill {
namespace {

DistillationOptions run(const Options& options) {
  DistillationOptions method = kd_forward_row().function(options);
  method.several_teachers = true;
  return method;
}

}  // namespace

DistillRow babyllama_row() {
  DistillRow row = kd_forward_row();
  row.id = "babyllama";
  row.title = "BabyLlama";
  row.arxiv = "2308.02019";
  row.summary = "forward KL to the mean of several teachers' logits, beside the labels";
  row.function = run;
  row.claims = {{.statement = "a student above teachers of its own size",
                 .model = "T",
                 .baseline = {"full"},
                 .method = {"babyllama"},
                 .metric = "loss",
                 .training = {.steps = 100, .batch_size = 4, .new_blocks = 2, .baseline_rates = {2e-3}, .method_rates = {2e-3}, .peers_teach = true}}};
  return row;
}

}  // namespace frugal::distill
