// MiniLLM (arXiv 2306.08543, section 2.2): reverse KL over whole answers by policy gradient, with the paper's three measures: the single-step part
// exactly, sampling from a mix with the teacher, corrected by per-step importance weights, and rewards as a mean
// over the rest of the answer (over the tokens that are left). Where this differs: each sample is used for one gradient
// (the paper's inner epochs with a clipped ratio are left out: the first step of them), and the language-modelling term reads the data's own rows
// in place of a pre-training corpus.
#include "distill/distill_table.h"

namespace frugal::distill {
namespace {

DistillationOptions run(const Options& options) {
  DistillationOptions method;
  method.divergence = train::Divergence::reverse_kl;
  method.on_policy = 1;
  method.policy_gradient = true;
  method.teacher_share = options.number("teacher_mixed_alpha");
  method.label_weight = options.number("lm_coef");
  method.max_new_tokens = options.integer("max_new_tokens");
  return method;
}

}  // namespace

DistillRow minillm_row() {
  DistillRow row;
  row.id = "minillm";
  row.title = "MiniLLM";
  row.leaf = "distill";
  row.arxiv = "2306.08543";
  row.summary = "reverse KL by policy gradient, sampled from a mix of student and teacher";
  row.options = {number_option("teacher_mixed_alpha", 0.2, 0, 0.99, "the teacher's share of the distribution that is sampled from"),
                 number_option("lm_coef", 1, 0, 100, "weight of the cross-entropy of the data's rows"), max_new_tokens_option()};
  row.function = run;
  row.claims = {
      {.statement = "sampled continuations nearer to the text's own than after forward KL",
       .model = "T",
       .baseline = {"kd-forward"},
       .method = {"minillm:max_new_tokens=64"},
       .metric = "rouge_l",
       .lower_is_better = false,
       .training = {.steps = 40, .batch_size = 4, .new_blocks = 2, .shared_steps = 100, .baseline_rates = {5e-4}, .method_rates = {5e-4}, .temperature = 1}}};
  return row;
}

}  // namespace frugal::distill
