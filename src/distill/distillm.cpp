// DistiLLM (arXiv 2402.03898): a skewed KL (section 3.1, equations 3 and 4: one of the two distributions is compared with a mix of both, which bounds the
// gradient), over the data's rows and, in a share that begins at init_threshold, the student's own. Each time the held-out loss has risen by loss_eps
// the share grows by 0.1; the student's own rows are kept, and as training goes on they are more and more taken from there (algorithm 1, with the share
// of new ones falling linearly). Where the paper leaves it open, this is the authors' program (github.com/jongwooko/distillm): nothing is taken from the
// buffer before it is full, and a rise is counted from the loss at the last rise. Where it differs: rows go into the buffer as a step ends, so that a
// step's micro-batches do not see each other's, and no pre-training text is mixed in.
// Cost: gkd's, with fewer rows to sample; capacity * sequence_len * 4 bytes in memory and in each checkpoint.
#include "distill/distill_table.h"

namespace frugal::distill {
namespace {

DistillationOptions run(const Options& options) {
  DistillationOptions method;
  method.divergence = options.text("loss") == "skl" ? train::Divergence::skew_kl : train::Divergence::skew_reverse_kl;
  method.beta = options.number("skew_alpha");
  method.adaptive = true;
  method.on_policy = options.number("init_threshold");
  method.loss_eps = options.number("loss_eps");
  method.capacity = options.integer("capacity");
  method.sampling_temperature = options.number("temperature");
  method.max_new_tokens = options.integer("max_new_tokens");
  return method;
}

Claim against_gkd(std::string statement, std::string metric, double factor) {
  return {.statement = std::move(statement),
          .model = "T",
          .baseline = {"gkd:lmbda=1,max_new_tokens=64"},
          .method = {"distillm:capacity=16,max_new_tokens=64"},
          .metric = std::move(metric),
          .factor = factor,
          .training = {.steps = 40, .batch_size = 4, .new_blocks = 2, .shared_steps = 100, .baseline_rates = {5e-4}, .method_rates = {5e-4}}};
}

}  // namespace

DistillRow distillm_row() {
  DistillRow row;
  row.id = "distillm";
  row.title = "DistiLLM";
  row.leaf = "distill";
  row.arxiv = "2402.03898";
  row.summary = "skewed KL, on what the student wrote as far as its held-out loss rises, replayed from a buffer";
  row.options = {choice_option("loss", "srkl", {"skl", "srkl"}, "KL(p || alpha p + (1 - alpha) q), or KL(q || (1 - alpha) p + alpha q); q is the student"),
                 number_option("skew_alpha", 0.1, 0.001, 0.999, "share of a distribution in the mix that it is compared with"),
                 number_option("init_threshold", 0, 0, 1, "share of the micro-batches that the student writes, at first"),
                 number_option("loss_eps", 0.1, 0, 100, "a rise of the held-out loss by so much adds 0.1 to the share"),
                 integer_option("capacity", 1000, 1, 1 << 24, "rows that the student wrote to keep; they are used again when there are so many"),
                 number_option("temperature", 1, 0, 100, "of the student's sampling (0: its likeliest token)"),
                 max_new_tokens_option()};
  row.function = run;
  row.claims = {against_gkd("a held-out loss within 1 % of gkd's, after the same steps", "loss", 1.01),
                against_gkd("in less processor time", "cpu_seconds", 1)};
  return row;
}

}  // namespace frugal::distill
