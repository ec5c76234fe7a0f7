#include "lowrank/lowrank_table.h"

#include "lowrank/asvd.h"
#include "lowrank/svd.h"
#include "lowrank/svd_llm.h"

namespace frugal::lowrank {

const std::vector<chain::StepRow>& lowrank_rows() {
  static const std::vector<chain::StepRow> rows = {svd_row(), asvd_row(), svd_llm_row()};
  return rows;
}

}  // namespace frugal::lowrank
