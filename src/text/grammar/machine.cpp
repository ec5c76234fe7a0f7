#include "text/grammar/machine.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "base/error.h"

namespace frugal::text::grammar {

namespace {

size_t hash_of(const Cell& cell) {
  uint64_t hash = (static_cast<uint64_t>(cell.node) << 32 | cell.below) * 0x9E3779B97F4A7C15;
  hash = (hash ^ hash >> 31 ^ (static_cast<uint64_t>(cell.min) << 32 | cell.max)) * 0xD6E8FEB86659FD93;
  return hash ^ hash >> 32;
}

size_t hash_of(std::span<const CellId> cells) {
  uint64_t hash = cells.size();
  for (const CellId cell : cells) hash = (hash ^ cell) * 0x9E3779B97F4A7C15 ^ hash >> 32;
  return hash ^ hash >> 29;
}

constexpr CellId kFree = kUnlimited;

}  // namespace

Machine::Machine(const Program& program) : program_(&program), classes_(program.byte_of_class.size()) { clear(); }

void Machine::clear() {
  cells_.assign(2, Cell{});
  stamps_.assign(2, 0);
  cell_table_.assign(1024, kFree);
  states_.clear();
  set_cells_.clear();
  state_table_.assign(256, kFree);
  steps_.clear();
  stamp_ = 0;
  state_of({});
  std::fill(steps_.begin(), steps_.end(), kDeadState);
}

CellId Machine::intern(const Cell& cell) {
  size_t slot = hash_of(cell) & (cell_table_.size() - 1);
  while (cell_table_[slot] != kFree) {
    if (cells_[cell_table_[slot]] == cell) return cell_table_[slot];
    slot = (slot + 1) & (cell_table_.size() - 1);
  }
  const auto id = static_cast<CellId>(cells_.size());
  cell_table_[slot] = id;
  cells_.push_back(cell);
  stamps_.push_back(0);
  if (cells_.size() * 2 > cell_table_.size()) grow_cell_table();
  return id;
}

void Machine::grow_cell_table() {
  cell_table_.assign(cell_table_.size() * 2, kFree);
  for (CellId id = 2; id < cells_.size(); ++id) {
    size_t slot = hash_of(cells_[id]) & (cell_table_.size() - 1);
    while (cell_table_[slot] != kFree) slot = (slot + 1) & (cell_table_.size() - 1);
    cell_table_[slot] = id;
  }
}

// Stacks that differ in one counter only, x{1,3} y and x{2,5} y, are one stack, x{1,5} y, if no number is missing between.
void Machine::join_counters(std::vector<CellId>& cells) {
  constexpr int kMaxDepth = 6;
  for (bool joined = true; joined;) {
    joined = false;
    for (int depth = 0; depth < kMaxDepth; ++depth) joined |= join_counters_at(depth, cells);
  }
}

bool Machine::join_counters_at(int depth, std::vector<CellId>& cells) {
  std::map<std::vector<uint32_t>, std::vector<std::pair<uint32_t, CellId>>> alike;  // all but one counter; its min, the stack
  std::vector<CellId> result;
  const size_t before = cells.size();
  work_ += cells.size();
  for (const CellId id : cells) {
    std::vector<uint32_t> key;
    CellId at = id;
    for (int i = 0; i < depth && at > kBottomCell; ++i, at = cells_[at].below) key.insert(key.end(), {cells_[at].node, cells_[at].min, cells_[at].max});
    if (at <= kBottomCell || program_->nodes[cells_[at].node].kind != NodeKind::repeat) {
      result.push_back(id);
    } else {
      key.insert(key.end(), {cells_[at].node, cells_[at].below});
      alike[std::move(key)].emplace_back(cells_[at].min, id);
    }
  }
  for (auto& [key, stacks] : alike) {
    std::sort(stacks.begin(), stacks.end());
    for (size_t i = 0; i < stacks.size();) {
      std::vector<CellId> above;
      CellId at = stacks[i].second;
      for (int frame = 0; frame < depth; ++frame, at = cells_[at].below) above.push_back(at);
      Cell joined = cells_[at];
      size_t next = i + 1;
      for (; next < stacks.size() && (joined.max == kUnlimited || stacks[next].first <= joined.max + 1); ++next) {
        CellId other = stacks[next].second;
        for (int frame = 0; frame < depth; ++frame) other = cells_[other].below;
        joined.max = std::max(joined.max, cells_[other].max);
      }
      CellId top = intern(joined);
      for (; !above.empty(); above.pop_back()) {
        Cell cell = cells_[above.back()];
        cell.below = top;
        top = intern(cell);
      }
      result.push_back(top);
      i = next;
    }
  }
  cells = std::move(result);
  return cells.size() < before;
}

StateId Machine::state_of(std::vector<CellId> cells) {
  constexpr size_t kMany = 24;
  std::sort(cells.begin(), cells.end());
  cells.erase(std::unique(cells.begin(), cells.end()), cells.end());
  if (cells.size() > kMany) {
    join_counters(cells);
    std::sort(cells.begin(), cells.end());
    cells.erase(std::unique(cells.begin(), cells.end()), cells.end());
  }
  if (cells.size() > kMaxStacks) {
    fail(ErrorKind::invalid_input, "grammar: too ambiguous: more than {} readings of the text so far", kMaxStacks);
  }
  if (states_.size() * 2 > state_table_.size()) {
    state_table_.assign(state_table_.size() * 2, kFree);
    for (StateId id = 0; id < states_.size(); ++id) {
      size_t slot = hash_of(cells_of(id)) & (state_table_.size() - 1);
      while (state_table_[slot] != kFree) slot = (slot + 1) & (state_table_.size() - 1);
      state_table_[slot] = id;
    }
  }
  size_t slot = hash_of(cells) & (state_table_.size() - 1);
  for (; state_table_[slot] != kFree; slot = (slot + 1) & (state_table_.size() - 1)) {
    const std::span<const CellId> known = cells_of(state_table_[slot]);
    if (std::equal(known.begin(), known.end(), cells.begin(), cells.end())) return state_table_[slot];
  }
  work_ += classes_ / 4;  // what a state takes: a row of steps
  const auto id = static_cast<StateId>(states_.size());
  const bool bottom = std::find(cells.begin(), cells.end(), kBottomCell) != cells.end();
  states_.push_back({static_cast<uint32_t>(set_cells_.size()), static_cast<uint32_t>(cells.size()), bottom});
  set_cells_.insert(set_cells_.end(), cells.begin(), cells.end());
  steps_.resize(steps_.size() + classes_, kUnknown);
  state_table_[slot] = id;
  return id;
}

bool Machine::first_visit(CellId cell) {
  if (stamps_[cell] == stamp_) return false;
  stamps_[cell] = stamp_;
  return true;
}

void Machine::push(NodeId id, CellId below) {
  const Node& node = program_->nodes[id];
  const bool counts = node.kind == NodeKind::repeat;
  pending_.push_back({id, counts ? node.min : 0, counts ? node.max : 0, below});
}

void Machine::reach(CellId id) {
  if (id <= kBottomCell) {
    found_.push_back(id);
  } else {
    const Cell& cell = cells_[id];
    pending_.push_back({cell.node, cell.min, cell.max, cell.below});
  }
}

// From pending_ to the state of all that can come next.
StateId Machine::expand() {
  while (!pending_.empty()) {
    if (++work_ > kMaxWork) fail(ErrorKind::invalid_input, "grammar: too ambiguous: more than {} steps for one token", kMaxWork);
    const Pending top = pending_.back();
    pending_.pop_back();
    const Node& node = program_->nodes[top.node];
    switch (node.kind) {
      case NodeKind::never: break;
      case NodeKind::empty: reach(top.below); break;
      case NodeKind::bytes:
      case NodeKind::literal: found_.push_back(intern({top.node, top.min, 0, top.below})); break;
      case NodeKind::sequence: {
        const Node& rest = program_->nodes[node.second];
        const bool counts = rest.kind == NodeKind::repeat;
        push(node.first, intern({node.second, counts ? rest.min : 0, counts ? rest.max : 0, top.below}));
        break;
      }
      case NodeKind::alternatives:
        if (!first_visit(intern({top.node, 0, 0, top.below}))) break;
        work_ += node.second;
        for (uint32_t i = 0; i < node.second; ++i) push(program_->children[node.first + i], top.below);
        break;
      case NodeKind::reference:
        if (first_visit(intern({top.node, 0, 0, top.below}))) push(node.first, top.below);
        break;
      case NodeKind::repeat: {
        if (!first_visit(intern({top.node, top.min, top.max, top.below}))) break;
        if (top.min == 0) reach(top.below);
        const uint32_t max = top.max == kUnlimited ? kUnlimited : top.max - 1;
        push(node.first, max == 0 ? top.below : intern({top.node, top.min == 0 ? 0 : top.min - 1, max, top.below}));
        break;
      }
    }
  }
  std::vector<CellId> found;
  found.swap(found_);
  return state_of(std::move(found));
}

StateId Machine::new_step(StateId state, uint8_t byte_class) {
  const uint8_t byte = program_->byte_of_class[byte_class];
  pending_.clear();
  found_.clear();
  ++stamp_;
  const uint32_t first = states_[state].first, count = states_[state].count;
  for (uint32_t i = 0; i < count; ++i) {
    const CellId id = set_cells_[first + i];
    if (id <= kBottomCell) continue;
    const Cell cell = cells_[id];
    const Node& node = program_->nodes[cell.node];
    if (node.kind == NodeKind::bytes) {
      if (program_->byte_sets[node.first][byte]) reach(cell.below);
    } else if (static_cast<uint8_t>(program_->literals[node.first + cell.min]) == byte) {
      if (cell.min + 1 == node.second) {
        reach(cell.below);
      } else {
        found_.push_back(intern({cell.node, cell.min + 1, 0, cell.below}));
      }
    }
  }
  work_ += count;
  const StateId next = expand();
  steps_[state * classes_ + byte_class] = next;
  return next;
}

StateId Machine::start() {
  pending_.clear();
  found_.clear();
  ++stamp_;
  push(program_->root, kEndCell);
  return expand();
}

StateId Machine::state_below(CellId below) {
  pending_.clear();
  found_.clear();
  ++stamp_;
  reach(below);
  return expand();
}

void Machine::keep_only(std::span<StateId*> live) {
  std::vector<std::vector<CellId>> sets;
  for (const StateId* state : live) {
    const auto cells = cells_of(*state);
    sets.emplace_back(cells.begin(), cells.end());
  }
  const std::vector<Cell> old = std::move(cells_);
  clear();
  std::unordered_map<CellId, CellId> moved = {{kEndCell, kEndCell}, {kBottomCell, kBottomCell}};
  std::vector<CellId> chain;
  for (size_t i = 0; i < sets.size(); ++i) {
    for (CellId& id : sets[i]) {
      for (CellId at = id; !moved.contains(at); at = old[at].below) chain.push_back(at);
      for (; !chain.empty(); chain.pop_back()) {
        Cell cell = old[chain.back()];
        cell.below = moved.at(cell.below);
        moved[chain.back()] = intern(cell);
      }
      id = moved.at(id);
    }
    *live[i] = state_of(std::move(sets[i]));
  }
}

}  // namespace frugal::text::grammar
