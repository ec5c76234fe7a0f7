// The ledger: what was done to a model and what that cost, one JSON object a line, appended and synced row by row, so that
// a killed run leaves whole rows. Reports, claims and search read nothing else.
//
// A row stands alone: it names the model, the chain, the text and the machine, which is what decides whether two rows may
// be compared (see chain/ledger_metrics.h). A value that was not measured is absent, never zero.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace frugal::chain {

enum class RowKind { step, eval };

struct Machine {
  std::string cpu;      // as /proc/cpuinfo names it
  std::string isa;      // instruction set that the kernels ran with: "avx2"
  std::string host;     // hash of the host name, which tells two machines of one kind apart and names neither
  int64_t cores = 0;    // logical
  int64_t threads = 0;  // that the run used
  int64_t memory_bytes = 0;

  bool operator==(const Machine&) const = default;
};

// This machine, from /proc; fields that cannot be read stay empty.
Machine this_machine(std::string isa, int threads);

struct LedgerRow {
  RowKind kind = RowKind::eval;
  std::string time;                  // UTC, "2026-11-24T17:44:38Z"; append() fills it when empty
  std::string name;                  // short label of the point, as a recipe gives it; may be empty
  std::string model;                 // name of the model that the chain started from
  std::string model_hash;            // content of the weights this row is about
  std::string base_hash;             // content of the weights the chain started from; equal to model_hash for the base itself
  std::vector<std::string> chain;    // canonical steps: "gptq:bits=3,group=64". Empty: the base. A step row: up to that step
  std::vector<std::string> leaves;   // the survey leaf of each step ("quantize"), as long as `chain`
  std::vector<std::string> runtime;  // settings of the run, canonical: "kv:bits=8"
  std::string calibration;           // what the chain read (chain/manifest.h); empty: nothing
  Machine machine;
  std::string version;  // of frugal
  std::string notes;

  std::optional<int64_t> bytes;       // all weight files on disk
  std::optional<int64_t> parameters;  // of the original, tied tensors counted once
  std::optional<double> bits_per_weight;

  std::string text, text_hash;         // name and content of the evaluation text
  std::optional<int64_t> ctx, chunks;  // tokens a chunk, chunks
  std::optional<int64_t> tokens;       // scored
  std::optional<double> ln_perplexity, perplexity, perplexity_stderr;
  std::optional<double> ln_ratio, ln_ratio_stderr;  // ln(perplexity / base's), paired over chunks: mean, standard error
  std::optional<double> kl_mean, top1_agreement;    // against the base; nats, share
  std::map<std::string, double> tasks;              // accuracy by task name

  std::optional<double> prefill_tps, decode_tps;      // tokens a second
  std::optional<int64_t> peak_rss_bytes;              // of the evaluated model's process
  std::optional<double> step_seconds, energy_joules;  // energy: absent where the machine has no RAPL counter
  std::optional<int64_t> step_peak_rss_bytes;

  bool operator==(const LedgerRow&) const = default;
};

std::string to_json_line(const LedgerRow& row);                     // no newline; a value that is not finite is left out
LedgerRow parse_row(std::string_view line, std::string_view name);  // throws Error{corrupt_file}; name leads the message

struct LedgerContents {
  std::vector<LedgerRow> rows;        // in the order of the file
  std::vector<std::string> problems;  // one message for each line that was skipped: "ledger.jsonl:7: ..."
};

// Reads a ledger of at most 256 MiB. A line that is not a row is skipped, logged as a warning and reported; a last line
// without a newline is what a killed run left and is ignored. Throws Error{io} when the file cannot be read.
LedgerContents read_ledger(const std::string& path);
// Several ledgers one after the other.
LedgerContents read_ledgers(const std::vector<std::string>& paths);

class Ledger {
 public:
  explicit Ledger(std::string path) : path_(std::move(path)) {}
  // Appends and syncs; throws Error{io} and leaves the file as it was. Safe between processes (the file is locked).
  void append(LedgerRow row) const;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace frugal::chain
