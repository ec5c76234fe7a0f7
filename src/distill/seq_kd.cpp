// Sequence-level knowledge distillation (Kim and Rush, arXiv 1606.07947, section 3.2): the student is trained on what the teacher answers. The
// paper takes the best of a beam search; here it is the teacher's likeliest token each time (a beam of one), or a sample.
#include "distill/distill_table.h"

namespace frugal::distill {
namespace {

DistillationOptions run(const Options& options) {
  DistillationOptions method;
  method.text_only = true;
  method.sampling_temperature = options.number("temperature");
  method.max_new_tokens = options.integer("max_new_tokens");
  return method;
}

}  // namespace

DistillRow seq_kd_row() {
  DistillRow row;
  row.id = "seq-kd";
  row.title = "Sequence-level KD";
  row.leaf = "distill";
  row.arxiv = "1606.07947";
  row.summary = "the student is trained on the teacher's answers";
  row.options = {number_option("temperature", 0, 0, 100, "of the teacher's sampling (0: its likeliest token)"), max_new_tokens_option()};
  row.function = run;
  row.claims = {{.statement = "greedy answers nearer to the data's than after training on the data",
                 .model = "T",
                 .baseline = {"full"},
                 .method = {"seq-kd:max_new_tokens=64"},
                 .metric = "rouge_l",
                 .lower_is_better = false,
                 .training = {.steps = 100, .batch_size = 4, .new_blocks = 2, .rows = true, .baseline_rates = {2e-3}, .method_rates = {2e-3}}}};
  return row;
}

}  // namespace frugal::distill
