// Losses at the head, row by row, with the slope by the logits in closed form: how far a student's next-token distribution is from its teacher's, and
// from its labels.
#pragma once

#include <ATen/core/Tensor.h>

namespace frugal::train {

// With p = softmax(teacher / temperature) and q = softmax(student / temperature):
enum class Divergence {
  forward_kl,      // KL(p || q)
  reverse_kl,      // KL(q || p)
  jensen_shannon,  // beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q (arXiv 2306.13649, equation 1)
  skew_kl,         // KL(p || beta p + (1 - beta) q) (arXiv 2402.03898, section 3.1)
  skew_reverse_kl  // KL(q || (1 - beta) p + beta q)
};

struct RowLoss {
  at::Tensor values;    // [rows], nats
  at::Tensor gradient;  // [rows, vocab]: of each row's value by the student's logits
  double sum() const;   // of the values, in float64
};

// student, teacher: logits [rows, vocab], float32. beta is of the last three, in (0, 1). No gradient is recorded.
RowLoss divergence(const at::Tensor& student, const at::Tensor& teacher, Divergence kind, double temperature, double beta);

// -log softmax(logits)[target]; targets [rows] int64, all in the vocabulary. No gradient is recorded.
RowLoss label_loss(const at::Tensor& logits, const at::Tensor& targets);

}  // namespace frugal::train
