#include "text/train/unigram_lattice.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "text/unicode.h"

namespace frugal::text {
namespace {

constexpr double kUnknownPenalty = 10.0;  // SentencePiece's
constexpr size_t kHeapChildren = 4;

// log(exp(a) + exp(b)), in the operations of SentencePiece and `tokenizers`.
double log_sum_exp(double a, double b) {
  const double low = std::min(a, b), high = std::max(a, b);
  return high > low + 50 ? high : high + std::log(std::exp(low - high) + 1.0);
}

}  // namespace

UnigramPieces::UnigramPieces(std::vector<UnigramPiece> pieces) : pieces_(std::move(pieces)), min_score_(std::numeric_limits<double>::infinity()) {
  for (size_t id = 1; id < pieces_.size(); ++id) {
    trie_.insert(pieces_[id].text, static_cast<int32_t>(id));
    min_score_ = std::min(min_score_, pieces_[id].score);
  }
}

void UnigramLattice::add_node(int32_t id, size_t begin, size_t end, double score) {
  const auto index = static_cast<int32_t>(nodes_.size());
  nodes_.push_back({.id = id, .begin = static_cast<uint32_t>(begin), .end = static_cast<uint32_t>(end), .score = score});
  if (first_ending_[end] == kNone) {
    first_ending_[end] = index;
  } else {
    nodes_[static_cast<size_t>(last_ending_[end])].next_ending = index;
  }
  last_ending_[end] = index;
}

void UnigramLattice::build(std::string_view text, const UnigramPieces& pieces) {
  const size_t size = text.size();
  nodes_.clear();
  first_beginning_.assign(size + 2, 0);
  first_ending_.assign(size + 1, kNone);
  last_ending_.assign(size + 1, kNone);
  add_node(kEnds, 0, 0, 0);
  for (size_t begin = 0; begin < size;) {
    const size_t char_length = decode_char(text, begin).length;
    first_beginning_[begin] = static_cast<int32_t>(nodes_.size());
    bool has_char = false;
    int32_t node = Trie::kRoot;
    for (size_t end = begin; end < size;) {
      node = pieces.trie().child(node, static_cast<uint8_t>(text[end++]));
      if (node == Trie::kNone) break;
      const int32_t id = pieces.trie().value(node);
      if (id == Trie::kNone) continue;
      has_char |= end - begin == char_length;
      add_node(id, begin, end, pieces.list()[static_cast<size_t>(id)].score);
    }
    if (!has_char) add_node(0, begin, begin + char_length, pieces.min_score() - kUnknownPenalty);
    // Inside a character nothing begins.
    for (size_t i = 1; i < char_length; ++i) first_beginning_[begin + i] = static_cast<int32_t>(nodes_.size());
    begin += char_length;
  }
  first_beginning_[size] = static_cast<int32_t>(nodes_.size());
  first_beginning_[size + 1] = static_cast<int32_t>(nodes_.size()) + 1;
  nodes_.push_back({.id = kEnds, .begin = static_cast<uint32_t>(size), .end = static_cast<uint32_t>(size), .score = 0});
}

double UnigramLattice::add_expected(double count, std::span<double> expected) {
  const size_t size = first_ending_.size() - 1;
  before_.assign(size + 1, 0);
  after_.assign(size + 1, 0);
  for (size_t position = 1; position <= size; ++position) {
    bool first = true;
    for (int32_t i = first_ending_[position]; i != kNone; i = nodes_[static_cast<size_t>(i)].next_ending) {
      const Node& node = nodes_[static_cast<size_t>(i)];
      const double way = node.score + before_[node.begin];
      before_[position] = first ? way : log_sum_exp(before_[position], way);
      first = false;
    }
  }
  for (size_t position = size; position-- > 0;) {
    bool first = true;
    for (const Node& node : beginning_at(position)) {
      const double way = node.score + after_[node.end];
      after_[position] = first ? way : log_sum_exp(after_[position], way);
      first = false;
    }
  }
  const double all = before_[size];
  for (size_t i = 1; i + 1 < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    expected[static_cast<size_t>(node.id)] += count * std::exp(before_[node.begin] + node.score + after_[node.end] - all);
  }
  return all;
}

// Viterbi. The sums are compared with the node's own score in them, as `tokenizers` does: rounding decides between equals.
void UnigramLattice::find_best() {
  for (size_t i = 1; i < nodes_.size(); ++i) {
    Node& node = nodes_[i];
    node.previous = kNone;
    for (int32_t j = first_ending_[node.begin]; j != kNone; j = nodes_[static_cast<size_t>(j)].next_ending) {
      const double score = nodes_[static_cast<size_t>(j)].best_score + node.score;
      if (node.previous == kNone || score > node.best_score) {
        node.best_score = score;
        node.previous = j;
      }
    }
  }
}

std::vector<int32_t> UnigramLattice::best() {
  find_best();
  std::vector<int32_t> ids;
  for (int32_t i = nodes_.back().previous; i > 0; i = nodes_[static_cast<size_t>(i)].previous) ids.push_back(nodes_[static_cast<size_t>(i)].id);
  std::reverse(ids.begin(), ids.end());
  return ids;
}

// Backwards from the end with the exact best score of what is left (A*). The heap is that of `tokenizers`, four children and the
// newer of equals above, so that equals come out in the same order.
std::vector<std::vector<int32_t>> UnigramLattice::two_best() {
  find_best();
  hypotheses_.clear();
  agenda_.clear();
  push({static_cast<int32_t>(nodes_.size()) - 1, kNone, 0, 0});
  std::vector<std::vector<int32_t>> ways;
  while (!agenda_.empty() && ways.size() < 2) {
    const int32_t top = pop();
    const Hypothesis hypothesis = hypotheses_[static_cast<size_t>(top)];
    if (hypothesis.node == 0) {
      auto& way = ways.emplace_back();
      for (int32_t i = hypothesis.next; hypotheses_[static_cast<size_t>(i)].next != kNone; i = hypotheses_[static_cast<size_t>(i)].next) {
        way.push_back(nodes_[static_cast<size_t>(hypotheses_[static_cast<size_t>(i)].node)].id);
      }
      continue;
    }
    for (int32_t i = first_ending_[nodes_[static_cast<size_t>(hypothesis.node)].begin]; i != kNone; i = nodes_[static_cast<size_t>(i)].next_ending) {
      const Node& node = nodes_[static_cast<size_t>(i)];
      push({i, top, node.best_score + hypothesis.score, node.score + hypothesis.score});
    }
  }
  return ways;
}

void UnigramLattice::push(const Hypothesis& hypothesis) {
  agenda_.push_back(static_cast<int32_t>(hypotheses_.size()));
  hypotheses_.push_back(hypothesis);
  sift_up(agenda_.size() - 1);
}

void UnigramLattice::sift_up(size_t at) {
  const auto estimate = [&](size_t i) { return hypotheses_[static_cast<size_t>(agenda_[i])].estimate; };
  while (at > 0 && !(estimate(at) < estimate((at - 1) / kHeapChildren))) {
    std::swap(agenda_[at], agenda_[(at - 1) / kHeapChildren]);
    at = (at - 1) / kHeapChildren;
  }
}

int32_t UnigramLattice::pop() {
  const int32_t top = agenda_.front();
  agenda_.front() = agenda_.back();
  agenda_.pop_back();
  const auto larger = [&](size_t a, size_t b) {
    return hypotheses_[static_cast<size_t>(agenda_[a])].estimate < hypotheses_[static_cast<size_t>(agenda_[b])].estimate ? b : a;
  };
  size_t at = 0;
  for (size_t child = 1; child < agenda_.size(); child = kHeapChildren * at + 1) {
    const size_t siblings = std::min(kHeapChildren, agenda_.size() - child);
    // Pairs first, then their winners; fewer than four one after the other.
    size_t largest = child;
    if (siblings == kHeapChildren) {
      largest = larger(larger(child, child + 1), larger(child + 2, child + 3));
    } else {
      for (size_t i = 1; i < siblings; ++i) largest = larger(largest, child + i);
    }
    std::swap(agenda_[at], agenda_[largest]);
    at = largest;
  }
  if (!agenda_.empty()) sift_up(at);
  return top;
}

}  // namespace frugal::text
