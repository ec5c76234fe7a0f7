#include "text/grammar/beginnings.h"

#include <deque>
#include <map>
#include <utility>

#include "base/error.h"
#include "text/grammar/machine.h"

namespace frugal::text::grammar {
namespace {

constexpr size_t kMaxPairs = 10'000;

// Both machines read the same bytes. Where the second is dead, what is left of the first is free; where it is through, nothing is.
class Exclusion {
 public:
  Exclusion(Builder& builder, const Program& program, const Program& beginnings)
      : builder_(builder), program_(program), offset_(builder.add(program)), all_(program), begun_(beginnings) {}

  NodeId run() {
    const GroupScope scope(builder_);
    const StateId start = begun_.start();
    if (begun_.has_end(start)) return builder_.never();
    const NodeId root = reach({all_.start(), start});
    for (; !queue_.empty(); queue_.pop_front()) builder_.set_target(known_.at(queue_.front()), node_of(queue_.front()));
    return root;
  }

 private:
  using Pair = std::pair<StateId, StateId>;  // of all_ and begun_

  NodeId reach(const Pair& pair) {
    if (pair.second == kDeadState) return rest(pair.first);
    const auto [it, fresh] = known_.try_emplace(pair, 0);
    if (fresh) {
      if (known_.size() > kMaxPairs || all_.is_full()) fail(ErrorKind::invalid_input, "grammar: too many texts begin as a call does");
      it->second = builder_.reference();
      queue_.push_back(pair);
    }
    return it->second;
  }

  NodeId node_of(const Pair& pair) {
    std::map<Pair, ByteSet> bytes;
    for (int byte = 0; byte < 256; ++byte) {
      all_.begin_work();
      begun_.begin_work();
      const Pair next = {all_.step(pair.first, static_cast<uint8_t>(byte)), begun_.step(pair.second, static_cast<uint8_t>(byte))};
      if (next.first != kDeadState && !begun_.has_end(next.second)) bytes[next].set(static_cast<size_t>(byte));
    }
    std::vector<NodeId> ways;
    for (const auto& [next, set] : bytes) ways.push_back(builder_.sequence(builder_.bytes(set), reach(next)));
    if (all_.has_end(pair.first)) ways.push_back(builder_.empty());
    return builder_.alternatives(std::move(ways));
  }

  // What may follow in a state of the first machine: its stacks, each a sequence.
  NodeId rest(StateId state) {
    const auto [it, fresh] = rests_.try_emplace(state, 0);
    if (!fresh) return it->second;
    std::vector<NodeId> stacks;
    for (const CellId top : all_.cells_of(state)) {
      std::vector<NodeId> parts;
      for (CellId at = top; at != kEndCell; at = all_.cell(at).below) parts.push_back(part(all_.cell(at)));
      stacks.push_back(builder_.sequence(parts));
    }
    return it->second = builder_.alternatives(std::move(stacks));
  }

  NodeId part(const Cell& cell) {
    const Node& node = program_.nodes[cell.node];
    if (node.kind == NodeKind::literal) return builder_.literal(std::string_view(program_.literals).substr(node.first + cell.min, node.second - cell.min));
    if (node.kind == NodeKind::repeat) return builder_.repeat(offset_ + node.first, cell.min, cell.max);
    return offset_ + cell.node;
  }

  Builder& builder_;
  const Program& program_;
  NodeId offset_;
  Machine all_, begun_;
  std::map<Pair, NodeId> known_;
  std::map<StateId, NodeId> rests_;
  std::deque<Pair> queue_;
};

}  // namespace

NodeId texts_without_beginnings(Builder& builder, const Program& program, const Program& beginnings) { return Exclusion(builder, program, beginnings).run(); }

}  // namespace frugal::text::grammar
