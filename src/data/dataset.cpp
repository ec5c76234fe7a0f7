#include "data/dataset.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/progress.h"
#include "base/team.h"
#include "data/row_reader.h"
#include "io/sha256.h"
#include "text/unicode.h"

namespace frugal::data {
namespace {

constexpr size_t kShownProblems = 10;

// What a row became.
struct Encoded {
  std::vector<Sequence> sequences = {};  // one; of a preference two; none when it is not kept
  std::string problem = {};              // not empty: a bad row
  bool too_long = false;                 // dropped or cut
};

bool learns(const Sequence& sequence) { return std::ranges::find(sequence.trained, 1) != sequence.trained.end(); }

// What `make` gives, or what is wrong with the row. Other errors are not the row's.
template <typename Make>
Encoded encode_or_problem(const std::string& where, const Make& make) {
  try {
    return make();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::out_of_memory || error.kind() == ErrorKind::io || error.kind() == ErrorKind::internal) throw;
    return {.problem = fmt::format("{}{}{}", where, where.empty() ? "" : ": ", error.what())};
  }
}

class Loader {
 public:
  Loader(const LoadOptions& options, const TextModel& model) : options_(options), model_(model) {
    if (options.sequence_len < 2) fail(ErrorKind::invalid_input, "sequence_len must be at least 2, is {}", options.sequence_len);
  }

  void read(const Source& source);
  Dataset finish();

 private:
  void read_text(const DataFile& file);
  void read_rows(const DataFile& file, const Source& source, RowReader& reader);
  Encoded encode(const RawRow& raw, const std::string& path, RowKind kind, const Source& source, const ChatEncoder& encoder) const;
  Encoded encode(const Row& row, const ChatEncoder& encoder) const;
  Sequence text_tokens(const std::string& text) const;
  void add(Encoded row);
  void append(std::span<const int32_t> tokens, std::span<const uint8_t> trained);
  void append_stream(const Sequence& text);
  void settle_kind(RowKind kind, const std::string& where);

  const LoadOptions& options_;
  const TextModel& model_;
  Dataset result_;
  std::optional<bool> pairs_;  // once a row was seen
  Sequence rest_;              // of concatenated texts: not yet an example
};

void Loader::read(const Source& source) {
  const DataFile file(source.path);
  if (const auto reader = open_rows(file, source.kind, source.fields))
    read_rows(file, source, *reader);
  else
    read_text(file);
  file.require_unchanged();
}

void Loader::read_text(const DataFile& file) {
  settle_kind(RowKind::text, file.path());
  const std::string text(file.text());
  file.require_unchanged();
  ++result_.report.rows;
  Encoded row;
  if (text.find_first_not_of(" \t\r\n") == text.npos)
    row.problem = fmt::format("{}: has no text", file.path());
  else if (const size_t nul = text.find('\0'); nul != text.npos)
    row.problem = fmt::format("{}: offset {}: a NUL byte: not a text", file.path(), nul);
  else if (!text::is_valid_utf8(text))
    row.problem = fmt::format("{}: is not UTF-8", file.path());
  else
    row = encode_or_problem(file.path(), [&] { return encode(Row(text), ChatEncoder(model_, {})); });
  add(std::move(row));
}

void Loader::read_rows(const DataFile& file, const Source& source, RowReader& reader) {
  const ChatEncoder encoder(model_, source.mask);
  Progress progress("reading " + std::filesystem::path(file.path()).filename().string(), static_cast<int64_t>(file.size()));
  RowKind kind = source.kind;
  size_t before = 0;
  uint64_t rows = 0;
  for (std::vector<RawRow> batch = reader.next(); !batch.empty(); batch = reader.next()) {
    for (size_t i = 0; kind == RowKind::automatic && i < batch.size(); ++i) {
      try {  // a bad row tells nothing; it is reported in its turn
        const std::string where = fmt::format("{}:{}", file.path(), batch[i].line);
        if (batch[i].problem.empty()) kind = kind_of(batch[i].value ? *batch[i].value : parse_json(batch[i].text, where), source.fields, where);
      } catch (const Error&) {
        if (!options_.skip_bad) break;
      }
    }
    if (kind != RowKind::automatic) settle_kind(kind, file.path());
    std::vector<Encoded> encoded(batch.size());
    parallel_for(static_cast<int64_t>(batch.size()), 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto at = static_cast<size_t>(i);
        encoded[at] = encode(batch[at], file.path(), kind, source, encoder);
      }
    });
    require_whole_mappings();  // before a row is called bad that was lost
    for (Encoded& row : encoded) {
      ++rows;
      ++result_.report.rows;
      add(std::move(row));
    }
    progress.step(static_cast<int64_t>(reader.position() - before));
    before = reader.position();
  }
  if (rows == 0) fail(ErrorKind::invalid_input, "{}: has no rows", file.path());
}

Encoded Loader::encode(const RawRow& raw, const std::string& path, RowKind kind, const Source& source, const ChatEncoder& encoder) const {
  const std::string where = fmt::format("{}:{}", path, raw.line);
  if (!raw.problem.empty()) return {.problem = fmt::format("{}: {}", where, raw.problem)};
  std::optional<Row> row;
  Encoded unread = encode_or_problem("", [&] {
    row = read_row(raw.value ? *raw.value : parse_json(raw.text, where), kind, source.fields, where);
    return Encoded{};
  });
  return row ? encode_or_problem(where, [&] { return encode(*row, encoder); }) : unread;
}

Sequence Loader::text_tokens(const std::string& text) const {
  Sequence result{model_.tokenizer->encode(text), {}};
  const text::SpecialTokens& special = model_.tokenizer->special();
  if (special.eos && (result.tokens.empty() || result.tokens.back() != *special.eos)) result.tokens.push_back(*special.eos);
  result.trained.assign(result.tokens.size(), 1);
  if (!result.trained.empty()) result.trained[0] = 0;
  return result;
}

Encoded Loader::encode(const Row& row, const ChatEncoder& encoder) const {
  Encoded result;
  const size_t most = options_.sequence_len;
  const bool truncate = options_.over_length == OverLength::truncate;
  if (const auto* text = std::get_if<std::string>(&row)) {
    Sequence tokens = text_tokens(*text);
    tokens.cut = result.too_long = !options_.concatenate && tokens.tokens.size() > most;
    if (tokens.cut && !truncate) return result;
    if (tokens.cut) {
      tokens.tokens.resize(most);
      tokens.trained.resize(most);
    }
    result.sequences.push_back(std::move(tokens));
    return result;
  }
  const auto add_conversation = [&](const Conversation& conversation) {
    std::optional<Sequence> sequence = encoder.encode(conversation, most, truncate);
    if (!sequence) return false;
    result.too_long = result.too_long || sequence->cut;
    result.sequences.push_back(std::move(*sequence));
    return true;
  };
  const auto* pair = std::get_if<Preference>(&row);
  const bool all = pair ? add_conversation(pair->chosen) && add_conversation(pair->rejected) : add_conversation(std::get<Conversation>(row));
  if (!all) return {.too_long = true};
  return result;
}

void Loader::settle_kind(RowKind kind, const std::string& where) {
  const bool pairs = kind == RowKind::preference;
  if (pairs_.value_or(pairs) != pairs) fail(ErrorKind::invalid_input, "{}: preferences and other rows cannot be in one data set", where);
  if (options_.concatenate && kind != RowKind::text)
    fail(ErrorKind::invalid_input, "{}: only texts can be concatenated, these rows are {}", where, to_string(kind));
  pairs_ = pairs;
}

void Loader::add(Encoded row) {
  Report& report = result_.report;
  if (!row.problem.empty()) {
    if (!options_.skip_bad) fail(ErrorKind::invalid_input, "{}", row.problem);
    ++report.bad;
    if (report.problems.size() < kShownProblems) report.problems.push_back(std::move(row.problem));
    return;
  }
  if (row.sequences.empty()) {
    ++report.dropped;
    return;
  }
  if (row.too_long) ++report.cut;
  if (!options_.concatenate && !std::ranges::all_of(row.sequences, learns)) {
    ++report.without_labels;
    return;
  }
  ++report.kept;
  for (const Sequence& sequence : row.sequences) {
    if (options_.concatenate)
      append_stream(sequence);
    else
      append(sequence.tokens, sequence.trained);
  }
}

void Loader::append(std::span<const int32_t> tokens, std::span<const uint8_t> trained) {
  result_.tokens.insert(result_.tokens.end(), tokens.begin(), tokens.end());
  result_.trained.insert(result_.trained.end(), trained.begin(), trained.end());
  result_.offsets.push_back(result_.tokens.size());
}

void Loader::append_stream(const Sequence& text) {
  std::span<const int32_t> left = text.tokens;
  while (!left.empty()) {
    const size_t count = std::min(left.size(), options_.sequence_len - rest_.tokens.size());
    rest_.tokens.insert(rest_.tokens.end(), left.begin(), left.begin() + static_cast<std::ptrdiff_t>(count));
    left = left.subspan(count);
    if (rest_.tokens.size() < options_.sequence_len) continue;
    rest_.trained.assign(rest_.tokens.size(), 1);
    rest_.trained[0] = 0;
    append(rest_.tokens, rest_.trained);
    rest_ = {};
  }
}

Dataset Loader::finish() {
  if (rest_.tokens.size() > 1) {
    rest_.trained.assign(rest_.tokens.size(), 1);
    rest_.trained[0] = 0;
    append(rest_.tokens, rest_.trained);
  }
  Report& report = result_.report;
  report.tokens = result_.tokens.size();
  report.trained_tokens = static_cast<uint64_t>(std::ranges::count(result_.trained, 1));
  if (report.trained_tokens == 0) fail(ErrorKind::invalid_input, "nothing is left to learn: {}", to_string(report));
  result_.pairs = pairs_.value_or(false);
  return std::move(result_);
}

void set_fingerprint(Dataset& dataset) {
  io::Sha256 hash;
  hash.update(std::as_bytes(std::span(dataset.offsets)));
  hash.update(std::as_bytes(std::span(dataset.tokens)));
  hash.update(std::as_bytes(std::span(dataset.trained)));
  const uint8_t pairs = dataset.pairs;
  hash.update(std::as_bytes(std::span(&pairs, 1)));
  dataset.fingerprint = hash.hex();
}

}  // namespace

OverLength over_length(std::string_view name) {
  if (name == "drop") return OverLength::drop;
  if (name == "truncate") return OverLength::truncate;
  fail(ErrorKind::invalid_input, "over_length must be drop or truncate, is {}", printable(name));
}

std::string to_string(const Report& report) {
  std::string text = fmt::format("{} rows, {} kept, {} tokens, {} of them learned", report.rows, report.kept, report.tokens, report.trained_tokens);
  const auto add = [&](uint64_t count, std::string_view what) {
    if (count > 0) text += fmt::format("; {} {}", count, what);
  };
  add(report.bad, "bad");
  add(report.dropped, "too long and dropped");
  add(report.cut, "too long and cut");
  add(report.without_labels, "without a token to learn");
  for (const std::string& problem : report.problems) text += "\n  " + problem;
  return text;
}

Example Dataset::example(size_t index) const {
  FRUGAL_ASSERT(index < size());
  const size_t begin = offsets[index], count = offsets[index + 1] - begin;
  return {std::span(tokens).subspan(begin, count), std::span(trained).subspan(begin, count)};
}

Dataset Dataset::subset(std::span<const uint64_t> ids) const {
  Dataset result;
  result.pairs = pairs;
  const size_t each = pairs ? 2 : 1;
  for (const uint64_t id : ids) {
    for (size_t i = id * each; i < (id + 1) * each; ++i) {
      const Example part = example(i);
      result.tokens.insert(result.tokens.end(), part.tokens.begin(), part.tokens.end());
      result.trained.insert(result.trained.end(), part.trained.begin(), part.trained.end());
      result.offsets.push_back(result.tokens.size());
    }
  }
  result.report.rows = result.report.kept = ids.size();
  result.report.tokens = result.tokens.size();
  result.report.trained_tokens = static_cast<uint64_t>(std::ranges::count(result.trained, 1));
  set_fingerprint(result);
  return result;
}

Dataset load_dataset(const std::vector<Source>& sources, const LoadOptions& options, const TextModel& model) {
  if (sources.empty()) fail(ErrorKind::invalid_input, "no data set is given");
  Loader loader(options, model);
  for (const Source& source : sources) loader.read(source);
  Dataset result = loader.finish();
  set_fingerprint(result);
  return result;
}

}  // namespace frugal::data
