// The methods of distillation. A row turns its options into what the student minimizes.
#pragma once

#include <cstdint>

#include "base/method_table.h"
#include "train/divergence.h"

namespace frugal::distill {

struct DistillationOptions {
  bool several_teachers = false;  // takes two and more; else exactly one

  // Black box: the teacher's text is all that is seen. It answers the rows' prompts, and the student learns the answers; of the rest only
  // temperature and max_new_tokens count.
  bool text_only = false;

  // The loss of a target: weight * divergence + (1 - weight) * cross-entropy of the row's label.
  train::Divergence divergence = train::Divergence::forward_kl;
  double beta = 0.5;  // of jensen_shannon and the skewed ones
  double weight = 1;
  double temperature = 1;             // of both distributions in the loss
  bool scale_by_temperature = false;  // divergence times temperature^2

  // Rows that the student writes, after the prompts of the data's.
  double on_policy = 0;  // share of the micro-batches
  double sampling_temperature = 1;
  int64_t max_new_tokens = 128;

  // DistiLLM: the share grows from on_policy as the held-out loss rises, and with the steps more and more of it is what the student wrote before.
  bool adaptive = false;
  double loss_eps = 0;   // a rise of the held-out loss that counts
  int64_t capacity = 0;  // rows of the student's that are kept

  // MiniLLM.
  bool policy_gradient = false;
  double teacher_share = 0;  // of the distribution that is sampled from
  double label_weight = 0;   // of the cross-entropy of the data's rows, beside the sampled ones
};

using DistillFunction = DistillationOptions (*)(const Options& options);
using DistillRow = MethodRow<DistillFunction>;

const MethodTable<DistillFunction>& distill_table();

DistillRow kd_forward_row();
DistillRow babyllama_row();
DistillRow gkd_row();
DistillRow minillm_row();
DistillRow seq_kd_row();
DistillRow distillm_row();

// Options that several methods have.
OptionSpec max_new_tokens_option();

}  // namespace frugal::distill
