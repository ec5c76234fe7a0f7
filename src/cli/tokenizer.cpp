// frugal tokenizer train: a vocabulary from text files.
#include "text/tokenizer.h"

#include <filesystem>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/process.h"
#include "cli/context.h"
#include "cli/terminal.h"
#include "text/chat_template.h"
#include "text/split_table.h"
#include "text/train/tokenizer_trainer.h"

namespace frugal::cli {
namespace {

using text::TrainerType;

constexpr size_t kMaxTextBytes = size_t{1} << 30;
constexpr std::string_view kGpt2 = "gpt2";  // as everybody but GGUF's list of names spells it

struct TrainValues {
  std::string type = "bpe", normalization = "none", pattern, output, chat_template, held_out;
  text::TokenizerTrainerOptions options;
  int64_t limit_alphabet = 0, max_token_length = 0;
  std::optional<std::string> initial_alphabet;
  std::vector<std::string> files;
  bool overwrite = false;
};

// Nothing but a tokenizer is replaced by one: a directory with weights is kept.
void require_replaceable(const TrainValues& values) {
  std::error_code ignored;
  if (!values.overwrite || !std::filesystem::is_directory(values.output, ignored)) return;
  for (const auto& entry : std::filesystem::directory_iterator(values.output)) {
    const std::string name = entry.path().filename().string();
    if (name != "tokenizer.json" && name != "tokenizer_config.json" && name != "chat_template.jinja") {
      fail(ErrorKind::invalid_input, "{}: holds {} too, which --overwrite would remove; choose another output", values.output, printable(name));
    }
  }
}

// An option of the other type is a mistake, not to be passed over.
void require_options_of_type(const TrainValues& values) {
  const text::TokenizerTrainerOptions defaults;
  const auto& unigram = values.options.unigram;
  const bool bpe = values.options.type == TrainerType::bpe;
  const auto refuse = [&](bool given, const char* name) {
    if (given) fail(ErrorKind::invalid_input, "{} is an option of --type {}", name, bpe ? "unigram" : "bpe");
  };
  refuse(!bpe && !values.pattern.empty(), "--pattern");
  refuse(!bpe && values.options.bpe.min_frequency != 0, "--min-frequency");
  refuse(!bpe && values.limit_alphabet != 0, "--limit-alphabet");
  refuse(!bpe && values.max_token_length != 0, "--max-token-length");
  refuse(bpe && values.options.byte_fallback, "--byte-fallback");
  refuse(bpe && unigram.max_piece_length != defaults.unigram.max_piece_length, "--max-piece-length");
  refuse(bpe && unigram.shrinking_factor != defaults.unigram.shrinking_factor, "--shrinking-factor");
  refuse(bpe && unigram.n_sub_iterations != defaults.unigram.n_sub_iterations, "--n-sub-iterations");
}

text::TokenizerTrainerOptions trainer_options(const TrainValues& values) {
  text::TokenizerTrainerOptions options = values.options;
  if (!values.pattern.empty()) options.pattern = values.pattern == kGpt2 ? text::TokenizerTrainerOptions().pattern : values.pattern;
  options.normalization = values.normalization == "nfc"    ? text::Normalization::nfc
                          : values.normalization == "nfkc" ? text::Normalization::nfkc
                                                           : text::Normalization::none;
  if (values.limit_alphabet > 0) options.bpe.limit_alphabet = values.limit_alphabet;
  if (values.max_token_length > 0) options.bpe.max_token_length = values.max_token_length;
  options.bpe.initial_alphabet = values.initial_alphabet.value_or(text::every_byte());
  options.unigram.initial_alphabet = values.initial_alphabet.value_or("");
  if (options.type == TrainerType::unigram && options.unk_token.empty()) options.unk_token = "<unk>";
  if (!values.chat_template.empty()) {
    options.chat_template = read_text_file(values.chat_template, kMaxTextBytes);
    const text::ChatTemplate checked(options.chat_template, values.chat_template);
  }
  return options;
}

double bytes_per_token(const text::Tokenizer& tokenizer, const std::string& path) {
  const std::string text = read_text_file(path, kMaxTextBytes);
  if (text.empty()) fail(ErrorKind::invalid_input, "{}: the held-out file is empty", path);
  return static_cast<double>(text.size()) / static_cast<double>(tokenizer.encode(text, {.add_special = false}).size());
}

void run(const Context& context, TrainValues& values) {
  values.options.type = values.type == "bpe" ? TrainerType::bpe : TrainerType::unigram;
  require_options_of_type(values);
  require_replaceable(values);
  if (!values.held_out.empty()) require_readable(values.held_out);
  const text::TokenizerTrainerOptions options = trainer_options(values);
  AtomicDirectory directory(values.output, values.overwrite, "tokenizer.json");
  const Stopwatch watch;
  const text::TrainedTokenizer trained = text::train_tokenizer(values.files, options);
  const double seconds = watch.seconds();
  text::write_tokenizer(trained, directory.staging());
  const auto tokenizer = text::load_tokenizer_directory(directory.staging());
  const double held_out = values.held_out.empty() ? 0 : bytes_per_token(*tokenizer, values.held_out);
  directory.commit();
  if (trained.vocabulary != options.vocab_size) {
    print_note(fmt::format("the vocabulary has {} tokens, not {}: {}", trained.vocabulary, options.vocab_size,
                           trained.vocabulary > options.vocab_size ? "special tokens and characters alone are more" : "the text has no more to merge or cut"));
  }
  if (context.json) {
    Json summary = {{"output", values.output}, {"type", values.type}, {"vocabulary", trained.vocabulary},  {"merges", trained.merges}, {"words", trained.words},
                    {"bytes", trained.bytes},  {"seconds", seconds},  {"peak_rss_bytes", peak_rss_bytes()}};
    summary["bytes_per_token"] = values.held_out.empty() ? Json() : Json(held_out);
    print_json(summary);
    return;
  }
  std::string out = fmt::format("{}: {} tokens", values.output, trained.vocabulary);
  if (options.type == TrainerType::bpe) out += fmt::format(", {} merges", trained.merges);
  out += fmt::format(", from {:.1f} MB with {} distinct words in {:.1f} s", static_cast<double>(trained.bytes) / 1e6, trained.words, seconds);
  if (!values.held_out.empty()) out += fmt::format("; {:.2f} bytes a token on {}", held_out, values.held_out);
  print(out + "\n");
}

std::vector<std::string> pattern_names() {
  std::vector<std::string> names{std::string(kGpt2)};
  for (const text::SplitRow& row : text::split_table()) {
    if (row.byte_level) names.insert(names.end(), row.names.begin(), row.names.end());
  }
  return names;
}

}  // namespace

void add_tokenizer(CLI::App& app, Context& context) {
  const auto values = std::make_shared<TrainValues>();
  CLI::App& group = verb_group(app, "tokenizer", "Make a tokenizer");
  new_verb(group, context, "train", "Train a tokenizer on text files: byte-level BPE or Unigram, as Hugging Face tokenizers trains them",
           [&context, values] { run(context, *values); })
      .texts("files", values->files, "Text files, UTF-8")
      .required()
      .text("-o,--output", values->output, "Directory for tokenizer.json and tokenizer_config.json")
      .required()
      .choice("--type", values->type, {"bpe", "unigram"}, "Byte-level BPE, or SentencePiece's unigram model")
      .integer("--vocab-size", values->options.vocab_size, 1, 16 << 20, "Tokens, special tokens and alphabet included")
      .texts("--special,--special-tokens", values->options.special_tokens, "Special token; repeat for more. They have the first ids")
      .text("--bos-token", values->options.bos_token, "Special token that begins a text")
      .text("--eos-token", values->options.eos_token, "Special token that ends a text")
      .text("--unk-token", values->options.unk_token, "Special token for what the vocabulary lacks (unigram: <unk>)")
      .text("--pad-token", values->options.pad_token, "Special token that fills up")
      .choice("--normalization", values->normalization, {"none", "nfc", "nfkc"}, "Normal form that texts are brought to; none keeps every byte")
      .each(
          "--initial-alphabet", [values](const std::string& text) { values->initial_alphabet = text; },
          "Characters that are tokens whether they occur or not (bpe: their bytes; all 256 unless given)")
      .choice("--pattern", values->pattern, pattern_names(), "bpe: how words are cut, by the model that cuts so (gpt2 unless given)")
      .integer("--min-frequency", values->options.bpe.min_frequency, 0, INT64_MAX, "bpe: a pair that occurs less often never merges")
      .integer("--limit-alphabet", values->limit_alphabet, 0, 256, "bpe: keep only so many bytes (0: all)")
      .integer("--max-token-length", values->max_token_length, 0, 1 << 20, "bpe: tokens are shorter than this many bytes (0: no limit)")
      .flag("--byte-fallback", values->options.byte_fallback, "unigram: 256 byte tokens for characters that are no tokens")
      .integer("--max-piece-length", values->options.unigram.max_piece_length, 1, 1 << 10, "unigram: characters of the longest piece")
      .number("--shrinking-factor", values->options.unigram.shrinking_factor, 0.01, 0.99, "unigram: share of the pieces that a round keeps")
      .integer("--n-sub-iterations", values->options.unigram.n_sub_iterations, 1, 100, "unigram: of expectation maximization in a round")
      .text("--chat-template", values->chat_template, "File with a chat template to go with the tokenizer")
      .text("--held-out", values->held_out, "Text file to say bytes per token on")
      .flag("--overwrite", values->overwrite, "Replace a tokenizer that exists");
}

}  // namespace frugal::cli
