#include "cli/step_table.h"

#include "lowrank/lowrank_table.h"
#include "prune/prune_table.h"
#include "quantize/quantize_table.h"
#include "train/recover.h"

namespace frugal::cli {

chain::StepTable joined_step_table() {
  chain::StepTable table(quantize::quantize_rows());
  table.append(prune::prune_rows());
  table.append(lowrank::lowrank_rows());
  table.append({train::recover_row()});
  return table;
}

}  // namespace frugal::cli
