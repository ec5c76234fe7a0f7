#include "share/share_table.h"

namespace frugal::share {

const MethodTable<SharedArchitecture>& share_table() {
  static const MethodTable<SharedArchitecture> table({mobilellm_ls_row(), mobillama_row()});
  return table;
}

}  // namespace frugal::share
