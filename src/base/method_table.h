// A table of methods: one row per method, of plain data and one plain function. The row is the registry, the CLI, the
// recipe schema, the help text, the README's table and the test driver. T is the function type of the folder's methods
// (a compression step, a decode method, a KV policy).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/options.h"

namespace frugal {

// Training that both sides of a claim get alike (claims/training.h). Nothing is trained by default.
struct TrainingBudget {
  int64_t steps = 0;
  int64_t batch_size = 8, sequence_len = 128;                  // examples of a step, their tokens
  int64_t new_blocks = 0;                                      // what trains is a new model of so many blocks and the model's widths; 0: the model as it is
  int64_t new_width = 0;                                       // of the new model, with heads as wide as the model's; 0: the model's
  int64_t tuned_width = 0;                                     // at which rates are chosen; 0: new_width
  int64_t shared_steps = 0;                                    // plain training of the new model that both sides go on from
  int64_t steps_before_growth = 0;                             // of the side that grows: with half of the blocks; not in `steps`
  std::string text = "reference";                              // or "faq", which model T has not read
  bool rows = false;                                           // each paragraph's first half asks, its second half answers
  std::vector<double> baseline_rates = {}, method_rates = {};  // of learning; of several the one with the lowest held-out loss on the first seed
  int seeds = 3;
  bool peers_teach = false;  // the baseline's runs of the other seeds are the teachers; else the model is
  double temperature = 0;    // of answers that are judged; 0: the likeliest tokens
};

// What the paper says that is cheap enough to be measured here, as data for the one runner in claims/.
// "" in `reference` of a row means that it has a claim; a reference row is a baseline for others.
struct Claim {
  std::string statement;              // one sentence, as methods.md says it
  std::string model;                  // "S" (SmolLM2-135M-Instruct), "T" (trained here), "K" (kernel)
  std::vector<std::string> baseline;  // chain, each step as typed: "rtn:bits=3,group=64"; of training, see claims/side.h
  std::vector<std::string> method;
  std::string metric = "ln_perplexity";  // claims::metrics() has the list
  bool lower_is_better = true;
  double factor = 1, bound = 0;  // holds if method < factor * baseline + bound (lower is better); by default strictly better
  int chunks = 16;               // budget of a chain: evaluation chunks of 512 tokens
  TrainingBudget training = {};
};

template <typename T>
struct MethodRow {
  std::string id;  // as in methods.md: file name, CLI name, recipe key
  std::string title;
  std::string leaf;     // folder of the survey's tree: "quantize", "prune", ...
  std::string arxiv;    // "2210.17323", or a short source where there is none
  std::string summary;  // one line
  std::vector<OptionSpec> options;
  T function;
  std::vector<Claim> claims;  // empty: `reference` says why
  std::string reference;      // "baseline" for rows that others are measured against
};

template <typename T>
class MethodTable {
 public:
  MethodTable() = default;
  explicit MethodTable(std::vector<MethodRow<T>> rows) { append(std::move(rows)); }

  void append(std::vector<MethodRow<T>> rows) {
    for (MethodRow<T>& row : rows) {
      if (find(row.id)) fail(ErrorKind::internal, "method {} is in the table twice", row.id);
      rows_.push_back(std::move(row));
    }
  }

  const std::vector<MethodRow<T>>& rows() const { return rows_; }
  const MethodRow<T>* find(std::string_view id) const {
    for (const MethodRow<T>& row : rows_) {
      if (row.id == id) return &row;
    }
    return nullptr;
  }
  // Throws Error{invalid_input} with the nearest id.
  const MethodRow<T>& at(std::string_view id) const {
    if (const MethodRow<T>* row = find(id)) return *row;
    std::vector<std::string> ids;
    for (const MethodRow<T>& row : rows_) ids.push_back(row.id);
    fail(ErrorKind::invalid_input, "no method \"{}\"{}", printable(id), did_you_mean(id, ids));
  }

 private:
  std::vector<MethodRow<T>> rows_;
};

}  // namespace frugal
