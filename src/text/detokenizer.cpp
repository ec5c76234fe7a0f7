#include "text/detokenizer.h"

#include <utility>

#include "base/error.h"
#include "text/unicode.h"
#include "text/vocabulary.h"

namespace frugal::text {
namespace {

// What a decoder may make of its tokens: each of its steps can multiply the text.
constexpr size_t kFreeBytes = size_t{1} << 20;
constexpr size_t kGrowth = 64;

void check_growth(size_t bytes, size_t limit) {
  if (bytes > limit) fail(ErrorKind::corrupt_file, "the tokenizer's decoder makes more than {} bytes of these tokens", limit);
}

void replace_all(std::string& text, std::string_view what, std::string_view with, size_t limit = SIZE_MAX) {
  if (what.empty() || text.find(what) == std::string::npos) return;
  std::string out;
  size_t done = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, done)) {
    out.append(text, done, at - done);
    out += with;
    check_growth(out.size(), limit);
    done = at + what.size();
  }
  out.append(text, done);
  text = std::move(out);
}

void byte_level(DecodedToken& token) {
  if (token.verbatim) return;
  // A token with a character outside the map is no byte-level token: it is kept whole.
  for (size_t at = 0; at < token.text.size();) {
    const DecodedChar c = decode_char(token.text, at);
    if (!c.valid || char_to_byte(c.code) < 0) return;
    at += c.length;
  }
  token.text = visible_to_bytes(token.text);
}

void strip_token(std::string& text, const DecoderStep& step) {
  for (size_t i = 0; i < step.start && !step.text.empty() && text.starts_with(step.text); ++i) text.erase(0, step.text.size());
  for (size_t i = 0; i < step.stop && !step.text.empty() && text.ends_with(step.text); ++i) text.resize(text.size() - step.text.size());
}

void clean_up(std::string& text) {
  static constexpr std::pair<std::string_view, std::string_view> kRules[] = {{" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
                                                                             {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
                                                                             {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [what, with] : kRules) replace_all(text, what, with);
}

void apply_step(const DecoderStep& step, std::vector<DecodedToken>& tokens, bool whole, size_t limit) {
  using Kind = DecoderStep::Kind;
  if (step.kind == Kind::fuse) {
    std::string all;
    for (DecodedToken& token : tokens) all += token.text;
    tokens.clear();
    tokens.push_back({std::move(all), false});
    return;
  }
  for (size_t i = 0; i < tokens.size(); ++i) {
    std::string& text = tokens[i].text;
    const bool first = whole && i == 0, last = whole && i + 1 == tokens.size();
    switch (step.kind) {
      case Kind::byte_level: byte_level(tokens[i]); break;
      case Kind::byte_fallback:
        if (const int byte = parse_byte_token(text); byte >= 0 && !tokens[i].verbatim) text.assign(1, static_cast<char>(byte));
        break;
      case Kind::replace: replace_all(text, step.text, step.replacement, limit); break;
      case Kind::strip:
        if (whole) strip_token(text, step);
        break;
      case Kind::metaspace: replace_all(text, step.text, first && step.flag ? "" : " "); break;
      case Kind::wordpiece:
        if (!first) {
          if (!step.text.empty() && text.starts_with(step.text)) {
            text.erase(0, step.text.size());
          } else {
            text.insert(0, " ");
          }
        }
        if (step.flag) clean_up(text);
        break;
      case Kind::word_end: replace_all(text, step.text, last ? "" : " "); break;
      case Kind::fuse: break;
    }
  }
}

}  // namespace

std::string detokenize(const Detokenizer& steps, std::vector<DecodedToken> tokens, bool whole) {
  const auto size_of = [&] {
    size_t bytes = 0;
    for (const DecodedToken& token : tokens) bytes += token.text.size();
    return bytes;
  };
  const size_t limit = kFreeBytes + kGrowth * size_of();
  for (const DecoderStep& step : steps) {
    apply_step(step, tokens, whole, limit);
    if (step.kind == DecoderStep::Kind::replace) check_growth(size_of(), limit);
  }
  std::string out;
  // Without a decoder, words are joined by spaces (WordLevel and the like).
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0 && steps.empty()) out += ' ';
    out += tokens[i].text;
  }
  return out;
}

}  // namespace frugal::text
