// A ledger as a run over fourteen chains of a small model would leave it: made up, for tests of the report.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "chain/ledger.h"

namespace frugal::eval {

struct MadeUpPoint {
  std::vector<std::string> chain, leaves;
  double megabytes, ln_ratio, stderr_, decode_tps, memory_megabytes;
};

inline chain::LedgerRow row_of(const MadeUpPoint& point) {
  chain::LedgerRow row;
  row.time = "2026-11-24T18:00:00Z";
  row.model = "SmolLM2-135M-Instruct";
  row.model_hash = point.chain.empty() ? "b" : "m";
  row.base_hash = "b";
  row.chain = point.chain;
  row.leaves = point.leaves;
  row.machine = {"Intel Xeon Processor (Sapphire Rapids)", "avx512", "00000000000000aa", 2, 2, int64_t{24} << 30};
  row.version = "0.1.0";
  row.bytes = static_cast<int64_t>(point.megabytes * 1e6);
  row.parameters = 134515008;
  row.bits_per_weight = 8 * point.megabytes * 1e6 / 134515008;
  row.text = "evaluation.txt";
  row.text_hash = "t";
  row.ctx = 512;
  row.chunks = 16;
  row.tokens = 4096;
  row.ln_perplexity = std::log(21.34) + point.ln_ratio;
  row.perplexity = std::exp(*row.ln_perplexity);
  row.perplexity_stderr = *row.perplexity * 0.06;
  if (!point.chain.empty()) {
    row.ln_ratio = point.ln_ratio;
    row.ln_ratio_stderr = point.stderr_;
    row.kl_mean = 0.9 * std::abs(point.ln_ratio) + 0.001;
    row.top1_agreement = std::exp(-2 * std::abs(point.ln_ratio)) * 0.97;
  }
  row.prefill_tps = 4 * point.decode_tps;
  row.decode_tps = point.decode_tps;
  row.peak_rss_bytes = static_cast<int64_t>(point.memory_megabytes * 1e6);
  return row;
}

inline std::vector<chain::LedgerRow> made_up_ledger() {
  const std::vector<MadeUpPoint> points = {
      {{}, {}, 269.1, 0, 0, 41, 462},
      {{"rtn:bits=8,group=64"}, {"quantize"}, 143.2, 0.0006, 0.0004, 72, 331},
      {{"rtn:bits=4,group=64"}, {"quantize"}, 76.1, 0.0712, 0.0041, 116, 263},
      {{"gptq:bits=4,group=64"}, {"quantize"}, 76.1, 0.0339, 0.0029, 117, 263},
      {{"awq:bits=4,group=64"}, {"quantize"}, 76.1, 0.0405, 0.0033, 114, 264},
      {{"hqq:bits=4,group=64"}, {"quantize"}, 76.1, 0.0487, 0.0036, 115, 263},
      {{"rtn:bits=3,group=64"}, {"quantize"}, 59.3, 0.512, 0.016, 121, 247},
      {{"gptq:bits=3,group=64"}, {"quantize"}, 59.3, 0.221, 0.0094, 122, 246},
      {{"gptq:bits=2,group=32"}, {"quantize"}, 50.9, 6.1, 0.09, 131, 238},
      {{"wanda:sparsity=0.5"}, {"prune"}, 190.4, 0.331, 0.012, 49, 392},
      {{"sparsegpt:pattern=2:4"}, {"prune"}, 171.0, 0.402, 0.014, 63, 371},
      {{"shortgpt:layers=4"}, {"prune"}, 240.9, 0.75, 0.025, 47.5, 435},
      {{"svd-llm:ratio=0.8"}, {"lowrank"}, 228.8, 0.98, 0.03, 46, 421},
      {{"svd-llm:ratio=0.9", "gptq:bits=4,group=64"}, {"lowrank", "quantize"}, 71.9, 0.61, 0.021, 119, 259},
      {{"wanda:sparsity=0.5", "gptq:bits=4,group=64"}, {"prune", "quantize"}, 66.3, 0.44, 0.017, 101, 254},
      {{"shortgpt:layers=2", "gptq:bits=4,group=64"}, {"prune", "quantize"}, 72.4, 0.29, 0.013, 125, 258},
  };
  std::vector<chain::LedgerRow> rows;
  for (const MadeUpPoint& point : points) {
    rows.push_back(row_of(point));
    std::vector<std::string> prefix, leaves;
    for (size_t i = 0; i < point.chain.size(); ++i) {
      prefix.push_back(point.chain[i]);
      leaves.push_back(point.leaves[i]);
      chain::LedgerRow step = rows.back();
      step.kind = chain::RowKind::step;
      step.chain = prefix;
      step.leaves = leaves;
      step.step_seconds = 3.0 + 7.0 * static_cast<double>(prefix[i].size() % 5);
      rows.insert(rows.end() - 1, step);
    }
  }
  return rows;
}

}  // namespace frugal::eval
