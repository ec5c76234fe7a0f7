// Generalized knowledge distillation (arXiv 2306.13649, algorithm 1): with the chance lmbda a micro-batch is written by the student itself, and
// either way the student's distribution follows the teacher's by the generalized Jensen-Shannon divergence; its ends are the KLs, beta 0 the
// forward one, beta 1 the reverse one, as in trl. The sampled tokens are constants: no gradient flows through the sampling.
#include "distill/distill_table.h"

namespace frugal::distill {
namespace {

DistillationOptions run(const Options& options) {
  DistillationOptions method;
  method.beta = options.number("beta");
  method.divergence = method.beta == 0 ? train::Divergence::forward_kl : method.beta == 1 ? train::Divergence::reverse_kl : train::Divergence::jensen_shannon;
  method.on_policy = options.number("lmbda");
  method.sampling_temperature = options.number("temperature");
  method.max_new_tokens = options.integer("max_new_tokens");
  return method;
}

}  // namespace

DistillRow gkd_row() {
  DistillRow row;
  row.id = "gkd";
  row.title = "GKD";
  row.leaf = "distill";
  row.arxiv = "2306.13649";
  row.summary = "generalized Jensen-Shannon divergence on what the student writes itself";
  row.options = {number_option("lmbda", 0.5, 0, 1, "share of the micro-batches that the student writes"),
                 number_option("beta", 0.5, 0, 1, "0: forward KL, 1: reverse KL, between: Jensen-Shannon"),
                 number_option("temperature", 1, 0, 100, "of the student's sampling (0: its likeliest token)"), max_new_tokens_option()};
  row.function = run;
  row.claims = {{.statement = "on-policy above off-policy: greedy continuations nearer to the text's own",
                 .model = "T",
                 .baseline = {"gkd:lmbda=0"},
                 .method = {"gkd:lmbda=1,max_new_tokens=64"},
                 .metric = "rouge_l",
                 .lower_is_better = false,
                 .training = {.steps = 40, .batch_size = 4, .new_blocks = 2, .shared_steps = 100, .baseline_rates = {5e-4}, .method_rates = {5e-4}}}};
  return row;
}

}  // namespace frugal::distill
