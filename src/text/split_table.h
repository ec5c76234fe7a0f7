// The pre-tokenizers in use, by the name that GGUF files give them (tokenizer.ggml.pre).
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/pre_tokenizer.h"

namespace frugal::text {

struct SplitRow {
  std::vector<std::string_view> names = {};     // the first is the one that we write
  std::vector<std::string_view> patterns = {};  // applied one after the other, matches isolated
  bool ignore_merges = false;
  bool add_bos = false;    // when the file does not say
  bool byte_level = true;  // else raw UTF-8 with spaces as U+2581
};

std::span<const SplitRow> split_table();

// Throws Error{unsupported} that lists the known names: a guess would give wrong ids without a word.
const SplitRow& find_split(std::string_view name, std::string_view source);

// The steps of a row; patterns of the table are trusted.
PreTokenizer make_pre_tokenizer(const SplitRow& row);

// One Split of a tokenizer.json: hand-written if known as slow, compiled to machine code if in the table, else bounded.
std::unique_ptr<const SplitStep> split_by_regex(std::string_view regex, SplitBehavior behavior, bool invert, std::string_view name);

// The "pre_tokenizer" that makes `tokenizers` split as the row does.
Json pre_tokenizer_json(const SplitRow& row);

// The row that gives the pieces of this "pre_tokenizer", or null.
const SplitRow* row_of_pre_tokenizer(const Json& pre_tokenizer, bool ignore_merges);

extern const std::string_view kGpt2Pattern;

}  // namespace frugal::text
