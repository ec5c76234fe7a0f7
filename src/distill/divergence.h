// How far a student's next-token distribution is from its teacher's, row by row, with the slope by the student's logits in closed form.
#pragma once

#include <ATen/core/Tensor.h>

namespace frugal::distill {

// With p = softmax(teacher / temperature) and q = softmax(student / temperature):
enum class Divergence {
  forward_kl,     // KL(p || q)
  reverse_kl,     // KL(q || p)
  jensen_shannon  // beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q (arXiv 2306.13649, equation 1)
};

struct RowDivergence {
  at::Tensor values;    // [rows], nats
  at::Tensor gradient;  // [rows, vocab]: of each row's value by the student's logits
};

// student, teacher: logits [rows, vocab], float32. beta is of jensen_shannon, in (0, 1). No gradient is recorded.
RowDivergence divergence(const at::Tensor& student, const at::Tensor& teacher, Divergence kind, double temperature, double beta);

}  // namespace frugal::distill
