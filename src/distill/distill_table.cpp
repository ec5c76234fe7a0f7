#include "distill/distill_table.h"

namespace frugal::distill {

const MethodTable<DistillFunction>& distill_table() {
  static const MethodTable<DistillFunction> table({kd_forward_row(), gkd_row(), minillm_row(), babyllama_row(), seq_kd_row(), distillm_row()});
  return table;
}

OptionSpec max_new_tokens_option() { return integer_option("max_new_tokens", 128, 1, 1 << 20, "tokens of an answer at most"); }

}  // namespace frugal::distill
