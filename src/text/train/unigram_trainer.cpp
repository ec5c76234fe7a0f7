#include "text/train/unigram_trainer.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "base/progress.h"
#include "base/team.h"
#include "text/unicode.h"

namespace frugal::text {
namespace {

constexpr size_t kParts = 16;  // of the words, whatever the number of threads: the sums are then the same
constexpr size_t kWordsBetweenStops = 4096;
constexpr double kLeastExpected = 0.5;   // occurrences; pieces below it are dropped
constexpr double kPenaltyStep = 0.0001;  // between the scores of characters that come back

double digamma(double x) {
  double result = 0;
  for (; x < 7; x += 1) result -= 1 / x;
  x -= 0.5;
  const double inverse = 1 / x, square = inverse * inverse, fourth = square * square;
  return result + std::log(x) + (1.0 / 24) * square - 7.0 / 960 * fourth + (31.0 / 8064) * fourth * square - (127.0 / 30720) * fourth * fourth;
}

// Adds up, per piece, what `add(lattice, word, sums)` adds for each word, on the team.
template <typename Add>
std::vector<double> sum_over_words(const std::vector<WordCount>& words, size_t pieces, Add add) {
  std::vector<std::vector<double>> sums(kParts);
  parallel_for(static_cast<int64_t>(kParts), 1, [&](int64_t begin, int64_t end) {
    UnigramLattice lattice;
    for (auto part = static_cast<size_t>(begin); part < static_cast<size_t>(end); ++part) {
      sums[part].assign(pieces, 0.0);
      const size_t last = words.size() * (part + 1) / kParts;
      for (size_t i = words.size() * part / kParts; i < last; ++i) {
        if (i % kWordsBetweenStops == 0) stop_point();
        add(lattice, words[i], sums[part]);
      }
    }
  });
  std::vector<double> total(pieces, 0.0);
  for (const auto& part : sums) {
    for (size_t id = 0; id < pieces; ++id) total[id] += part[id];
  }
  return total;
}

class UnigramTraining {
 public:
  UnigramTraining(const std::vector<WordCount>& words, const UnigramTrainerOptions& options) : words_(words), options_(options) {
    std::set<std::string> characters;
    for (const auto& item : words) {
      for (const uint32_t c : decode_chars(item.word)) characters.insert(to_utf8(c));
    }
    for (const uint32_t c : decode_chars(options.initial_alphabet)) characters.insert(to_utf8(c));
    required_.assign(characters.begin(), characters.end());
    const auto& special = options_.special_tokens;
    const auto unk = std::find(special.begin(), special.end(), options_.unk_token);
    add_unk_ = !options_.unk_token.empty() && unk == special.end();
    if (!options_.unk_token.empty()) unk_id_ = add_unk_ ? 0 : static_cast<int32_t>(unk - special.begin());
    room_ = options_.vocab_size - static_cast<int64_t>(special.size()) - (add_unk_ ? 1 : 0);
    if (static_cast<int64_t>(required_.size()) > options_.vocab_size || room_ < 1) {
      fail(ErrorKind::invalid_input, "a vocabulary of {} tokens cannot hold the {} special tokens and the {} different characters of the text",
           options_.vocab_size, static_cast<int64_t>(special.size()) + (add_unk_ ? 1 : 0), required_.size());
    }
  }

  TrainedUnigram run() {
    std::vector<UnigramPiece> pieces{{"<UNK>", 0}};
    for (UnigramPiece& piece : seed_pieces(words_, options_)) pieces.push_back(std::move(piece));
    const auto enough = static_cast<size_t>(options_.vocab_size * 11 / 10);
    const double rounds = std::log(static_cast<double>(enough) / static_cast<double>(pieces.size())) / std::log(options_.shrinking_factor);
    Progress progress("training pieces", (std::max<int64_t>(0, static_cast<int64_t>(rounds)) + 1) * options_.n_sub_iterations);
    UnigramPieces model(std::move(pieces));
    for (;;) {
      for (int64_t i = 0; i < options_.n_sub_iterations; ++i) {
        model = UnigramPieces(maximize(model));
        progress.step(1, std::to_string(model.size()) + " pieces");
      }
      if (model.size() <= enough) return finish(model);
      model = UnigramPieces(prune(model, enough));
    }
  }

 private:
  // One round of expectation maximization, with a prior that drives rare pieces out (Liang and Klein 2007).
  std::vector<UnigramPiece> maximize(const UnigramPieces& model) const {
    const std::vector<double> expected = sum_over_words(words_, model.size(), [&](UnigramLattice& lattice, const WordCount& item, std::vector<double>& sums) {
      lattice.build(item.word, model);
      const double likelihood = lattice.add_expected(static_cast<double>(item.count), sums);
      if (std::isnan(likelihood)) fail(ErrorKind::invalid_input, "a word of {} bytes is too long to train on", item.word.size());
    });
    std::vector<UnigramPiece> kept{model.list().front()};
    double sum = 0;
    for (size_t id = 1; id < expected.size(); ++id) {
      if (expected[id] < kLeastExpected) continue;
      kept.push_back({model.list()[id].text, expected[id]});
      sum += expected[id];
    }
    const double log_sum = digamma(sum);
    for (size_t i = 1; i < kept.size(); ++i) kept[i].score = digamma(kept[i].score) - log_sum;
    return kept;
  }

  // What each piece is cut into when it is no piece itself: empty where nothing is needed or possible; `keep` says which of them
  // are the best of their own text.
  void find_alternatives(const UnigramPieces& model, std::vector<std::vector<int32_t>>& alternatives, std::vector<uint8_t>& keep) const {
    parallel_for(static_cast<int64_t>(model.size()) - 1, 256, [&](int64_t begin, int64_t end) {
      UnigramLattice lattice;
      for (auto id = static_cast<size_t>(begin) + 1; id < static_cast<size_t>(end) + 1; ++id) {
        if (id % kWordsBetweenStops == 0) stop_point();
        lattice.build(model.list()[id].text, model);
        auto ways = lattice.two_best();
        keep[id] = ways.size() == 1 || ways.front().size() == 1;
        if (ways.size() == 2 && ways.front().size() == 1) alternatives[id] = std::move(ways.back());
      }
    });
  }

  // Drops the pieces without which the best ways to cut the words lose least likelihood.
  std::vector<UnigramPiece> prune(const UnigramPieces& model, size_t enough) const {
    std::vector<std::vector<int32_t>> alternatives(model.size());
    std::vector<uint8_t> keep(model.size(), 0);
    find_alternatives(model, alternatives, keep);
    const std::vector<double> counts = sum_over_words(words_, model.size(), [&](UnigramLattice& lattice, const WordCount& item, std::vector<double>& sums) {
      lattice.build(item.word, model);
      for (const int32_t id : lattice.best()) sums[static_cast<size_t>(id)] += static_cast<double>(item.count);
    });
    double sum = 0, all_words = 0;
    for (const double count : counts) sum += count;
    for (const auto& item : words_) all_words += static_cast<double>(item.count);
    std::vector<UnigramPiece> kept{model.list().front()};
    std::vector<std::pair<double, size_t>> candidates;  // loss and id
    for (size_t id = 1; id < model.size(); ++id) {
      if (counts[id] == 0 && !keep[id]) continue;
      if (alternatives[id].empty()) {
        kept.push_back(model.list()[id]);
      } else if (counts[id] > 0) {
        // The alternatives take over the occurrences. SentencePiece adds one to the sum for each alternative but the first;
        // `tokenizers` for each piece of the model but one, and that decides which pieces go.
        const double log_sum = std::log(sum + counts[id] * (static_cast<double>(alternatives.size()) - 1));
        double without = 0;
        for (const int32_t other : alternatives[id]) without += std::log(counts[static_cast<size_t>(other)] + counts[id]) - log_sum;
        candidates.emplace_back(counts[id] / all_words * (std::log(counts[id]) - std::log(sum) - without), id);
      }
    }
    std::stable_sort(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
    const size_t size = std::max(enough, static_cast<size_t>(static_cast<double>(model.size()) * options_.shrinking_factor));
    for (size_t i = 0; i < candidates.size() && kept.size() != size; ++i) kept.push_back(model.list()[candidates[i].second]);
    return kept;
  }

  TrainedUnigram finish(const UnigramPieces& model) const {
    std::unordered_map<std::string, double> scores;
    for (size_t id = 1; id < model.size(); ++id) scores.emplace(model.list()[id].text, model.list()[id].score);
    std::unordered_set<std::string> inserted(options_.special_tokens.begin(), options_.special_tokens.end());
    inserted.insert({"<UNK>", options_.unk_token});
    std::vector<UnigramPiece> pieces;
    double penalty = 0;
    for (const std::string& c : required_) {
      if (!inserted.insert(c).second) continue;
      if (const auto it = scores.find(c); it != scores.end()) {
        pieces.push_back({c, it->second});
      } else {
        pieces.push_back({c, model.min_score() + penalty});
        penalty += kPenaltyStep;
      }
    }
    // Where the characters fill the vocabulary by themselves, `tokenizers` misses the moment to stop and so do we.
    for (size_t id = 1; id < model.size(); ++id) {
      if (!inserted.insert(model.list()[id].text).second) continue;
      pieces.push_back(model.list()[id]);
      if (static_cast<int64_t>(pieces.size()) == room_) break;
    }
    std::stable_sort(pieces.begin(), pieces.end(), [](const UnigramPiece& a, const UnigramPiece& b) { return a.score > b.score; });
    TrainedUnigram result{{}, unk_id_};
    if (add_unk_) result.pieces.push_back({options_.unk_token, 0});
    for (const std::string& token : options_.special_tokens) result.pieces.push_back({token, 0});
    std::move(pieces.begin(), pieces.end(), std::back_inserter(result.pieces));
    return result;
  }

  const std::vector<WordCount>& words_;
  const UnigramTrainerOptions& options_;
  std::vector<std::string> required_;  // characters, in the order of Unicode
  bool add_unk_ = false;
  std::optional<int32_t> unk_id_;
  int64_t room_ = 0;  // for pieces
};

}  // namespace

TrainedUnigram train_unigram(const std::vector<WordCount>& words, const UnigramTrainerOptions& options) { return UnigramTraining(words, options).run(); }

}  // namespace frugal::text
