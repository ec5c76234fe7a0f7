// All ways to cut a text into the pieces of a unigram model: what its trainer sums over and searches (Kudo 2018, section 3.2).
// One lattice is used for many texts and keeps its memory.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/trie.h"

namespace frugal::text {

struct UnigramPiece {
  std::string text;
  double score;  // log probability
};

// Pieces in training. Piece 0 stands for what is unknown, whatever its text and score.
class UnigramPieces {
 public:
  explicit UnigramPieces(std::vector<UnigramPiece> pieces);
  const std::vector<UnigramPiece>& list() const { return pieces_; }
  size_t size() const { return pieces_.size(); }
  double min_score() const { return min_score_; }
  const Trie& trie() const { return trie_; }

 private:
  std::vector<UnigramPiece> pieces_;
  Trie trie_;
  double min_score_;
};

class UnigramLattice {
 public:
  // The text must be valid UTF-8.
  void build(std::string_view text, const UnigramPieces& pieces);

  // Adds, per piece, `count` times how often it is expected in the text, over all ways to cut it. Gives the logarithm of their
  // summed probability.
  double add_expected(double count, std::span<double> expected);

  // The ids of the most probable way.
  std::vector<int32_t> best();
  // The two most probable, or the only one.
  std::vector<std::vector<int32_t>> two_best();

 private:
  struct Node {
    int32_t id;
    uint32_t begin, end;
    double score;
    double best_score = 0;  // of the best way that ends with this node
    int32_t previous = kNone, next_ending = kNone;
  };
  struct Hypothesis {
    int32_t node, next;
    double estimate, score;  // of the whole way, and of what comes after the node
  };
  static constexpr int32_t kNone = -1;
  static constexpr int32_t kEnds = -1;  // the id of the first and the last node

  void add_node(int32_t id, size_t begin, size_t end, double score);
  void find_best();
  void push(const Hypothesis& hypothesis);
  int32_t pop();
  void sift_up(size_t at);
  std::span<Node> beginning_at(size_t position) {
    return std::span(nodes_).subspan(static_cast<size_t>(first_beginning_[position]),
                                     static_cast<size_t>(first_beginning_[position + 1] - first_beginning_[position]));
  }

  std::vector<Node> nodes_;                          // the start, then by begin, then the end
  std::vector<int32_t> first_beginning_;             // per position, and one after
  std::vector<int32_t> first_ending_, last_ending_;  // chains per position, in the order of nodes_
  std::vector<double> before_, after_;               // per position: the logarithm of the sums over all ways to and from there
  std::vector<Hypothesis> hypotheses_;
  std::vector<int32_t> agenda_;  // a heap of hypotheses
};

}  // namespace frugal::text
