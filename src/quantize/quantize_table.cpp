#include "quantize/quantize_table.h"

#include "quantize/awq.h"
#include "quantize/gptq.h"
#include "quantize/hqq.h"
#include "quantize/qat_ste.h"
#include "quantize/rtn.h"
#include "quantize/smoothquant.h"
#include "quantize/spqr.h"
#include "quantize/tsld.h"
#include "quantize/w8a8_dynamic.h"

namespace frugal::quantize {

const std::vector<chain::StepRow>& quantize_rows() {
  static const std::vector<chain::StepRow> rows = {rtn_row(),          gptq_row(),        awq_row(),     hqq_row(), spqr_row(),
                                                   w8a8_dynamic_row(), smoothquant_row(), qat_ste_row(), tsld_row()};
  return rows;
}

}  // namespace frugal::quantize
