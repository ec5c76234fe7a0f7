// The unigram language model of SentencePiece (Kudo 2018, arXiv 1804.10959): the segmentation whose tokens have the
// largest sum of log probabilities, found by dynamic programming from left to right. O(bytes x longest token).
#include <limits>

#include "base/error.h"
#include "text/model.h"
#include "text/trie.h"
#include "text/unicode.h"

namespace frugal::text {
namespace {

constexpr double kUnknownPenalty = 10.0;  // SentencePiece's
constexpr size_t kMaxPieceBytes = 1024;

class Unigram final : public TokenModel {
 public:
  Unigram(const Vocabulary& vocabulary, std::vector<double> scores, const std::vector<bool>& usable, UnigramOptions options)
      : scores_(std::move(scores)), options_(std::move(options)), bytes_(options_.unknown.byte_fallback ? byte_token_ids(vocabulary) : std::vector<int32_t>{}) {
    for (int32_t id = 0; id < vocabulary.size(); ++id) {
      if (!usable[static_cast<size_t>(id)]) continue;
      const std::string_view text = vocabulary.text(id);
      if (text.size() > kMaxPieceBytes) {
        fail(ErrorKind::unsupported, "{}: token {} has {} bytes, more than {}", options_.source, id, text.size(), kMaxPieceBytes);
      }
      if (!text.empty()) trie_.insert(text, id);
    }
    most_bytes_ = options_.unknown.most_bytes(vocabulary, bytes_);
  }

  size_t least_ids(std::string_view piece) const override { return piece.size() / most_bytes_; }

  void encode(std::string_view piece, std::vector<int32_t>& ids) const override {
    struct Best {
      double score = -std::numeric_limits<double>::infinity();
      size_t start = 0;
      int32_t id = kUnknown;
      bool reached = false;
    };
    std::vector<Best> best(piece.size() + 1);
    best[0] = {0, 0, kUnknown, true};
    for (size_t start = 0; start < piece.size();) {
      const size_t char_length = decode_char(piece, start).length;
      const double base = best[start].score;
      bool has_char = false;
      int32_t node = Trie::kRoot;
      for (size_t end = start; end < piece.size();) {
        node = trie_.child(node, static_cast<uint8_t>(piece[end++]));
        if (node == Trie::kNone) break;
        const int32_t id = trie_.value(node);
        if (id == Trie::kNone) continue;
        has_char |= end - start == char_length;
        const double score = base + scores_[static_cast<size_t>(id)];
        if (!best[end].reached || score > best[end].score) best[end] = {score, start, id, true};
      }
      if (!has_char) {
        Best& next = best[start + char_length];
        // In this order: the library's rounding decides between segmentations of one score ("..." + "." and "." + "...").
        const double score = base + (options_.min_score - kUnknownPenalty);
        if (!next.reached || score > next.score) next = {score, start, kUnknown, true};
      }
      start += char_length;
    }
    std::vector<Part> path;
    for (size_t end = piece.size(); end > 0; end = best[end].start) path.push_back({best[end].start, end, best[end].id});
    bool open_unk = false;
    for (auto part = path.rbegin(); part != path.rend(); ++part) {
      if (part->id != kUnknown) {
        ids.push_back(part->id);
        open_unk = false;
      } else {
        unknown(piece.substr(part->begin, part->end - part->begin), open_unk, ids);
      }
    }
  }

 private:
  static constexpr int32_t kUnknown = -1;
  struct Part {
    size_t begin, end;
    int32_t id;
  };

  // The bytes of an unknown character if the vocabulary has them, else unk (one for a run of them if fused).
  void unknown(std::string_view c, bool& open_unk, std::vector<int32_t>& ids) const {
    if (options_.unknown.byte_fallback) {
      bool all = true;
      for (const char b : c) all &= bytes_[static_cast<uint8_t>(b)] >= 0;
      if (all) {
        for (const char b : c) ids.push_back(bytes_[static_cast<uint8_t>(b)]);
        open_unk = false;
        return;
      }
    }
    if (!options_.unknown.unk) fail(ErrorKind::invalid_input, "{}: \"{}\" is not in the vocabulary, which has no unknown token", options_.source, printable(c));
    if (!(open_unk && options_.unknown.fuse_unk)) ids.push_back(*options_.unknown.unk);
    open_unk = true;
  }

  std::vector<double> scores_;
  UnigramOptions options_;
  std::vector<int32_t> bytes_;
  Trie trie_;
  size_t most_bytes_ = 0;
};

}  // namespace

std::unique_ptr<const TokenModel> make_unigram(const Vocabulary& vocabulary, std::vector<double> scores, const std::vector<bool>& usable,
                                               UnigramOptions options) {
  return std::make_unique<Unigram>(vocabulary, std::move(scores), usable, std::move(options));
}

}  // namespace frugal::text
