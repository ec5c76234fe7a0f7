// Training data as tokens with a mask. Files are read and tokenized once, whole, so nothing that happens to them later matters.
//
// Memory: 5 bytes a token and 8 an example (a vector that grows holds up to twice that, for a moment three times): 100 million rows
// of 10 tokens take 5.8 GB.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/chat_encoder.h"
#include "data/row.h"

namespace frugal::data {

// A file: .jsonl (also under another name when `kind` is given), .json (a list of rows, or lines of them), Parquet, or any other: one text.
// A text is learned whole; bos is put before it where the tokenizer does so, and eos after it where the vocabulary has one.
struct Source {
  std::string path = {};
  RowKind kind = RowKind::automatic;
  FieldNames fields = {};
  MaskOptions mask = {};
};

enum class OverLength { drop, truncate };
OverLength over_length(std::string_view name);  // Throws Error{invalid_input} that lists the names.

struct LoadOptions {
  size_t sequence_len = 2048;
  OverLength over_length = OverLength::drop;  // what happens to an example of more tokens; counted
  bool skip_bad = false;                      // go on after a row that cannot be used, and count it; else stop with its file and line
  bool concatenate = false;                   // texts only: one after the other, cut into examples of sequence_len
};

struct Report {
  uint64_t rows = 0, kept = 0, bad = 0;
  uint64_t cut = 0, dropped = 0;  // longer than sequence_len
  uint64_t without_labels = 0;    // nothing of them is learned: not kept
  uint64_t tokens = 0, trained_tokens = 0;
  std::vector<std::string> problems;  // of the first bad rows: file, line, what is wrong
};
std::string to_string(const Report& report);  // one line for people

struct Example {
  std::span<const int32_t> tokens;
  std::span<const uint8_t> trained;  // 1: the token is a target; never the first one, which nothing predicts
};

struct Dataset {
  std::vector<int32_t> tokens;
  std::vector<uint8_t> trained;
  std::vector<uint64_t> offsets = {0};  // example i has the tokens [offsets[i], offsets[i + 1])
  bool pairs = false;                   // preferences: examples 2k and 2k + 1 are the chosen and the rejected answer of pair k
  std::string fingerprint;              // SHA-256 of all the above: equal for what trains alike, whatever file it came from
  Report report;

  size_t size() const { return offsets.size() - 1; }  // examples
  Example example(size_t index) const;
  // The examples `ids` in their order, or the pairs.
  Dataset subset(std::span<const uint64_t> ids) const;
};

// All rows of all sources, in order. The result does not depend on the number of threads. Throws Error{invalid_input} for a bad row
// (path:line and field), when the kinds of sources do not mix (preferences with others), and when nothing is left to learn.
Dataset load_dataset(const std::vector<Source>& sources, const LoadOptions& options, const TextModel& model);

}  // namespace frugal::data
