// Knowledge distillation (Hinton, Vinyals and Dean, arXiv 1503.02531, section 2): the student's softened distribution follows the teacher's,
// alpha T^2 KL(p_T || q_T) + (1 - alpha) cross-entropy of the label, T^2 so that the weight of the two parts does not depend on T.
#include "distill/distill_table.h"

namespace frugal::distill {
namespace {

DistillationOptions run(const Options& options) {
  DistillationOptions method;
  method.temperature = options.number("temperature");
  method.weight = options.number("alpha");
  method.scale_by_temperature = true;
  return method;
}

}  // namespace

DistillRow kd_forward_row() {
  DistillRow row;
  row.id = "kd-forward";
  row.title = "Knowledge distillation";
  row.leaf = "distill";
  row.arxiv = "1503.02531";
  row.summary = "forward KL to the teacher's softened logits, beside the labels";
  row.options = {number_option("temperature", 2, 0.01, 100, "of both distributions"),
                 number_option("alpha", 0.5, 0, 1, "weight of the teacher against the labels")};
  row.function = run;
  row.claims = {{.statement = "a held-out loss under training alone",
                 .model = "T",
                 .baseline = {"full"},
                 .method = {"kd-forward"},
                 .metric = "loss",
                 .training = {.steps = 100, .batch_size = 4, .new_blocks = 2, .baseline_rates = {2e-3}, .method_rates = {2e-3}}}};
  return row;
}

}  // namespace frugal::distill
