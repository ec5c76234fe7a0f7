#include "prune/prune_table.h"

#include "prune/magnitude.h"
#include "prune/shortgpt.h"
#include "prune/sparsegpt.h"
#include "prune/wanda.h"

namespace frugal::prune {

const std::vector<chain::StepRow>& prune_rows() {
  static const std::vector<chain::StepRow> rows = {magnitude_row(), wanda_row(), sparsegpt_row(), shortgpt_row()};
  return rows;
}

}  // namespace frugal::prune
