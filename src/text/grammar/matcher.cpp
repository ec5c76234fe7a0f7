#include "text/grammar/matcher.h"

#include <algorithm>
#include <mutex>

#include "base/error.h"
#include "text/grammar/machine.h"
#include "text/grammar/masks.h"

namespace frugal::text {

using grammar::CellId;
using grammar::kDeadState;
using grammar::kEndCell;
using grammar::StateId;

struct GrammarMatcher::Shared {
  Shared(std::shared_ptr<const Grammar> of_grammar, std::shared_ptr<const TokenBytes> of_tokens)
      : grammar(std::move(of_grammar)), tokens(std::move(of_tokens)), machine(grammar->program()), masks(grammar->program(), *tokens, machine) {}

  uint32_t new_slot(StateId state) {
    if (free_slots.empty()) {
      states.push_back(state);
      return static_cast<uint32_t>(states.size() - 1);
    }
    const uint32_t slot = free_slots.back();
    free_slots.pop_back();
    states[slot] = state;
    return slot;
  }

  // Before each call that may make states.
  void begin() {
    machine.begin_work();
    if (!machine.is_full()) return;
    std::vector<StateId*> live;
    for (StateId& state : states) live.push_back(&state);
    machine.keep_only(live);
  }

  StateId walk(StateId state, std::string_view text) {
    for (const char c : text) {
      if (state == kDeadState) break;
      state = machine.step(state, static_cast<uint8_t>(c));
    }
    return state;
  }

  std::mutex mutex;
  std::shared_ptr<const Grammar> grammar;
  std::shared_ptr<const TokenBytes> tokens;
  grammar::Machine machine;
  grammar::Masks masks;
  std::vector<StateId> states;  // by slot; of every matcher
  std::vector<uint32_t> free_slots;
};

GrammarMatcher::GrammarMatcher(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenBytes> tokens)
    : shared_(std::make_shared<Shared>(std::move(grammar), std::move(tokens))), slot_(shared_->new_slot(shared_->machine.start())) {}

GrammarMatcher::~GrammarMatcher() {
  const std::lock_guard lock(shared_->mutex);
  shared_->states[slot_] = kDeadState;
  shared_->free_slots.push_back(slot_);
}

GrammarMatcher::GrammarMatcher(const GrammarMatcher& other) : shared_(other.shared_), finished_(other.finished_) {
  const std::lock_guard lock(shared_->mutex);
  slot_ = shared_->new_slot(shared_->states[other.slot_]);
}

GrammarMatcher& GrammarMatcher::operator=(const GrammarMatcher& other) {
  GrammarMatcher copy(other);
  std::swap(shared_, copy.shared_);
  std::swap(slot_, copy.slot_);
  std::swap(finished_, copy.finished_);
  return *this;
}

void GrammarMatcher::allowed(std::span<uint32_t> bits) {
  const std::lock_guard lock(shared_->mutex);
  const TokenBytes& tokens = *shared_->tokens;
  if (bits.size() < (static_cast<size_t>(tokens.size()) + 31) / 32) {
    fail(ErrorKind::invalid_input, "grammar: a mask of {} words for {} tokens", bits.size(), tokens.size());
  }
  std::fill(bits.begin(), bits.end(), 0);
  if (finished_) return;
  shared_->begin();
  const StateId state = shared_->states[slot_];
  shared_->masks.add_allowed(state, bits);
  if (shared_->machine.has_end(state)) {
    for (const int32_t id : tokens.end_ids()) bits[static_cast<size_t>(id) / 32] |= 1u << id % 32;
  }
  if (std::all_of(bits.begin(), bits.end(), [](uint32_t word) { return word == 0; })) {
    fail(ErrorKind::invalid_input, "grammar: the vocabulary has no token that continues the text");
  }
}

bool GrammarMatcher::accept(int32_t token) {
  const TokenBytes& tokens = *shared_->tokens;
  if (finished_ || token < 0 || token >= tokens.size()) return false;
  if (tokens.is_end(token)) {
    finished_ = can_end();
    return finished_;
  }
  return !tokens.text(token).empty() && accept_bytes(tokens.text(token));
}

bool GrammarMatcher::accept_bytes(std::string_view text) {
  if (finished_) return false;
  const std::lock_guard lock(shared_->mutex);
  StateId state = shared_->states[slot_];
  constexpr size_t kPart = 1024;  // so that the states of a long text do not pile up
  const uint32_t at = shared_->new_slot(state);
  try {
    for (size_t begin = 0; begin < text.size() && shared_->states[at] != kDeadState; begin += kPart) {
      shared_->begin();
      shared_->states[at] = shared_->walk(shared_->states[at], text.substr(begin, kPart));
    }
  } catch (...) {
    shared_->states[at] = kDeadState;
    shared_->free_slots.push_back(at);
    throw;
  }
  state = shared_->states[at];
  shared_->states[at] = kDeadState;
  shared_->free_slots.push_back(at);
  if (state == kDeadState) return false;
  shared_->states[slot_] = state;
  return true;
}

bool GrammarMatcher::can_end() const {
  const std::lock_guard lock(shared_->mutex);
  return !finished_ && shared_->machine.has_end(shared_->states[slot_]);
}

bool GrammarMatcher::must_end() const {
  const std::lock_guard lock(shared_->mutex);
  const StateId state = shared_->states[slot_];
  return !finished_ && shared_->machine.has_end(state) && shared_->machine.cells_of(state).size() == 1;
}

std::string GrammarMatcher::forced() {
  constexpr size_t kMaxForced = 4096;
  const std::lock_guard lock(shared_->mutex);
  std::string text;
  if (finished_) return text;
  shared_->begin();
  const grammar::Program& program = shared_->grammar->program();
  for (StateId state = shared_->states[slot_]; text.size() < kMaxForced && !shared_->machine.has_end(state);) {
    int only = -1;
    for (const CellId id : shared_->machine.cells_of(state)) {
      const grammar::Cell& cell = shared_->machine.cell(id);
      const grammar::Node& node = program.nodes[cell.node];
      int byte = 256;
      if (node.kind == grammar::NodeKind::literal) {
        byte = static_cast<uint8_t>(program.literals[node.first + cell.min]);
      } else if (const grammar::ByteSet& set = program.byte_sets[node.first]; set.count() == 1) {
        byte = static_cast<int>(set._Find_first());
      }
      only = only < 0 || only == byte ? byte : 256;
    }
    if (only < 0 || only > 255) break;
    text.push_back(static_cast<char>(only));
    state = shared_->machine.step(state, static_cast<uint8_t>(only));
  }
  return text;
}

}  // namespace frugal::text
