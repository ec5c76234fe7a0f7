#include "tune/adalora.h"
#include "tune/bottleneck_adapter.h"
#include "tune/dora.h"
#include "tune/ia3.h"
#include "tune/loftq.h"
#include "tune/lora.h"
#include "tune/lora_fa.h"
#include "tune/lora_plus.h"
#include "tune/prefix_tuning.h"
#include "tune/prompt_tuning.h"
#include "tune/qa_lora.h"
#include "tune/qlora.h"
#include "tune/vera.h"

namespace frugal::tune {

const MethodTable<AttachFunction>& adapter_table() {
  static const MethodTable<AttachFunction> table({lora_row(), qlora_row(), dora_row(), lora_plus_row(), lora_fa_row(), ia3_row(), vera_row(),
                                                  bottleneck_adapter_row(), adalora_row(), prompt_tuning_row(), prefix_tuning_row(), loftq_row(),
                                                  qa_lora_row()});
  return table;
}

}  // namespace frugal::tune
