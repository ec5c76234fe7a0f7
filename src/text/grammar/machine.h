// Runs a program: sets of stacks, made into the states of an automaton as they are met.
//
// A cell is what is still to be matched: a node with its counters, and the cell below. Equal cells are one cell. A state is a
// set of cells whose nodes all take a byte (or of the end), so that a step is: take the byte in each, and expand what is below.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "text/grammar/program.h"

namespace frugal::text::grammar {

struct Cell {
  NodeId node = kUnlimited;
  uint32_t min = 0, max = 0;  // repeat: turns left; literal: min is the position
  uint32_t below = 0;
  friend bool operator==(const Cell&, const Cell&) = default;
};

using CellId = uint32_t;
using StateId = uint32_t;
constexpr CellId kEndCell = 0;     // the grammar is through
constexpr CellId kBottomCell = 1;  // the part of a stack that a mask is cached for is through
constexpr StateId kDeadState = 0;

// Not thread-safe.
class Machine {
 public:
  static constexpr size_t kMaxStacks = 2'000;  // in one state
  static constexpr size_t kMaxWork = 500'000;  // expansions between two calls of begin_work
  static constexpr size_t kMaxCells = 400'000, kMaxStates = 60'000;

  explicit Machine(const Program& program);

  StateId start();
  // Throws Error{invalid_input} when the grammar is too ambiguous here.
  StateId step(StateId state, uint8_t byte) {
    const StateId known = steps_[state * classes_ + program_->class_of[byte]];
    return known != kUnknown ? known : new_step(state, program_->class_of[byte]);
  }
  std::span<const CellId> cells_of(StateId state) const { return std::span(set_cells_).subspan(states_[state].first, states_[state].count); }
  bool has_end(StateId state) const { return states_[state].count > 0 && set_cells_[states_[state].first] == kEndCell; }
  bool has_bottom(StateId state) const { return states_[state].bottom; }

  const Cell& cell(CellId id) const { return cells_[id]; }
  CellId intern(const Cell& cell);
  // The state after everything above `below` is through; of cells that take a byte.
  StateId state_below(CellId below);
  StateId state_of(std::vector<CellId> cells);

  void begin_work() { work_ = 0; }
  bool is_full() const { return cells_.size() > kMaxCells || states_.size() > kMaxStates; }
  // Forgets all states but those named, which get new ids.
  void keep_only(std::span<StateId*> live);

 private:
  static constexpr StateId kUnknown = kUnlimited;
  struct State {
    uint32_t first, count;
    bool bottom;
  };
  struct Pending {
    NodeId node;
    uint32_t min, max;
    CellId below;
  };

  void clear();
  StateId new_step(StateId state, uint8_t byte_class);
  void push(NodeId node, CellId below);
  void reach(CellId cell);
  StateId expand();
  bool first_visit(CellId cell);
  void join_counters(std::vector<CellId>& cells);
  bool join_counters_at(int depth, std::vector<CellId>& cells);
  void grow_cell_table();

  const Program* program_;
  size_t classes_;
  std::vector<Cell> cells_;
  std::vector<uint32_t> stamps_;    // the last expansion that visited a cell
  std::vector<CellId> cell_table_;  // open addressing
  std::vector<State> states_;
  std::vector<CellId> set_cells_;
  std::vector<StateId> state_table_;  // open addressing
  std::vector<StateId> steps_;        // [states, classes]
  std::vector<Pending> pending_;
  std::vector<CellId> found_;
  uint32_t stamp_ = 0;
  size_t work_ = 0;
};

}  // namespace frugal::text::grammar
