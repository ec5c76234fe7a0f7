#include "text/grammar/text_rules.h"

#include <algorithm>
#include <map>

#include "text/grammar/machine.h"
#include "text/unicode.h"

namespace frugal::text::grammar {

namespace {

constexpr size_t kMaxNfaStates = 20'000;
constexpr size_t kMaxStates = 10'000;
constexpr size_t kMaxWork = 4'000'000;

struct TooLarge {};

// Thompson's automaton of one expression; a repetition is written out.
class Nfa {
 public:
  struct State {
    int set = -1;  // index of the characters that lead to `next`; -1: none, only `free`
    uint32_t next = 0;
    std::vector<uint32_t> free = {};
  };

  explicit Nfa(const Regex& regex) : regex_(regex) {
    start = add();
    end = add();
    sets.push_back(CharSet::all());
    for (const Regex::Branch& branch : regex.branches) {
      const uint32_t first = add(), last = add();
      if (!branch.at_start) loop(first);
      if (!branch.at_end) loop(last);
      states[start].free.push_back(first);
      states[last].free.push_back(end);
      build(branch.root, first, last);
    }
  }

  std::vector<State> states;
  std::vector<CharSet> sets;
  uint32_t start, end;

 private:
  uint32_t add() {
    if (states.size() >= kMaxNfaStates) throw TooLarge();
    states.push_back({});
    return static_cast<uint32_t>(states.size() - 1);
  }
  void loop(uint32_t state) {
    const uint32_t turn = add();
    states[state].free.push_back(turn);
    states[turn].set = 0;
    states[turn].next = state;
  }

  // Recursion as deep as the expression's groups, which the parser bounds.
  void build(uint32_t id, uint32_t from, uint32_t to) {
    const Regex::Node& node = regex_.nodes[id];
    switch (node.kind) {
      case Regex::Kind::empty: states[from].free.push_back(to); break;
      case Regex::Kind::chars: {
        const uint32_t step = add();
        states[from].free.push_back(step);
        states[step].set = static_cast<int>(sets.size());
        states[step].next = to;
        sets.push_back(node.set);
        break;
      }
      case Regex::Kind::sequence:
        for (const uint32_t child : node.children) {
          const uint32_t next = child == node.children.back() ? to : add();
          build(child, from, next);
          from = next;
        }
        break;
      case Regex::Kind::alternatives:
        for (const uint32_t child : node.children) build(child, from, to);
        break;
      case Regex::Kind::repeat: {
        for (uint32_t i = 0; i < node.min; ++i) from = turn(node.children[0], from);
        if (node.max == kUnlimited) {
          const uint32_t again = add(), after = add();
          states[from].free.push_back(again);
          build(node.children[0], again, after);
          states[after].free.push_back(again);
          states[again].free.push_back(to);
          break;
        }
        states[from].free.push_back(to);
        for (uint32_t i = node.min; i < node.max; ++i) {
          from = turn(node.children[0], from);
          states[from].free.push_back(to);
        }
        break;
      }
    }
  }
  uint32_t turn(uint32_t body, uint32_t from) {
    const uint32_t next = add();
    build(body, from, next);
    return next;
  }

  const Regex& regex_;
};

class RulesAutomaton {
 public:
  RulesAutomaton(const TextRules& rules, Builder& builder, JsonNodes& json) : rules_(rules), builder_(builder), json_(json) {
    for (const TextRules::Pattern& pattern : rules.patterns) nfas_.emplace_back(*pattern.regex);
    for (const std::string& name : rules.forbidden) forbidden_.push_back(decode_chars(name));
    find_classes();
  }

  NodeId run() {
    const GroupScope scope(builder_);
    State start;
    for (const Nfa& nfa : nfas_) start.sets.push_back(closure(nfa, {nfa.start}));
    for (uint32_t i = 0; i < forbidden_.size(); ++i) start.names.push_back(i);
    const NodeId node = reach(std::move(start));
    for (size_t i = 0; i < queue_.size(); ++i) {
      const State state = queue_[i]->first;
      const NodeId own = queue_[i]->second;
      std::map<NodeId, CharSet> by_target;
      for (const CharSet& chars : classes_) {
        if (++work_ > kMaxWork) throw TooLarge();
        if (const std::optional<State> next = after(state, chars.ranges()[0].first)) by_target[reach(*next)].add(chars);
      }
      std::vector<NodeId> parts;
      for (const auto& [target, chars] : by_target) parts.push_back(builder_.sequence(json_.plain_char(chars), target));
      if (accepts(state)) parts.push_back(builder_.byte('"'));
      builder_.set_target(own, builder_.alternatives(std::move(parts)));
    }
    return node;
  }

 private:
  struct State {
    std::vector<std::vector<uint32_t>> sets = {};  // for each expression
    uint32_t length = 0;                           // up to what still makes a difference
    std::vector<uint32_t> names = {};              // the forbidden texts that may yet come
    uint32_t taken = 0;                            // characters so far, while there are such texts
    friend auto operator<=>(const State&, const State&) = default;
  };

  // Characters that no expression and no name tells apart.
  void find_classes() {
    std::vector<uint32_t> cuts = {0};
    const auto cut = [&](const CharSet& set) {
      for (const CharRange& range : set.ranges()) {
        cuts.push_back(range.first);
        cuts.push_back(range.last + 1);
      }
    };
    for (const Nfa& nfa : nfas_) std::for_each(nfa.sets.begin(), nfa.sets.end(), cut);
    for (const auto& name : forbidden_) {
      for (const uint32_t c : name) cut(CharSet({{c, c}}));
    }
    std::sort(cuts.begin(), cuts.end());
    cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
    std::map<std::vector<bool>, std::vector<CharRange>> by_members;
    size_t single = 0;
    for (size_t i = 0; i < cuts.size() && cuts[i] <= kLastChar; ++i) {
      const CharRange range{cuts[i], (i + 1 < cuts.size() ? cuts[i + 1] : kLastChar + 1) - 1};
      std::vector<bool> members;
      for (const Nfa& nfa : nfas_) {
        for (const CharSet& set : nfa.sets) members.push_back(set.contains(range.first));
        work_ += nfa.sets.size();
      }
      if (work_ > kMaxWork) throw TooLarge();
      for (const auto& name : forbidden_) {
        if (std::find(name.begin(), name.end(), range.first) == name.end()) continue;
        members.push_back(true);
        for (size_t bits = ++single; bits != 0; bits >>= 1) members.push_back(bits & 1);
        break;
      }
      by_members[std::move(members)].push_back(range);
    }
    for (const auto& [members, ranges] : by_members) classes_.emplace_back(ranges);
  }

  std::vector<uint32_t> closure(const Nfa& nfa, std::vector<uint32_t> states) {
    std::vector<uint8_t> seen(nfa.states.size());
    for (const uint32_t state : states) seen[state] = 1;
    for (size_t i = 0; i < states.size(); ++i) {
      for (const uint32_t next : nfa.states[states[i]].free) {
        if (!seen[next]) {
          seen[next] = 1;
          states.push_back(next);
        }
      }
    }
    work_ += nfa.states.size() / 16 + states.size();
    if (work_ > kMaxWork) throw TooLarge();
    std::erase_if(states, [&](uint32_t state) { return nfa.states[state].set < 0 && state != nfa.end; });
    std::sort(states.begin(), states.end());
    return states;
  }

  std::optional<State> after(const State& state, uint32_t c) {
    State next;
    if (rules_.max != kUnlimited || rules_.min > 0) {
      if (state.length >= rules_.max) return std::nullopt;
      next.length = rules_.max == kUnlimited ? std::min(state.length + 1, rules_.min) : state.length + 1;
    }
    for (size_t i = 0; i < nfas_.size(); ++i) {
      const Nfa& nfa = nfas_[i];
      std::vector<uint32_t> to;
      for (const uint32_t from : state.sets[i]) {
        const Nfa::State& step = nfa.states[from];
        if (step.set >= 0 && nfa.sets[static_cast<size_t>(step.set)].contains(c)) to.push_back(step.next);
      }
      std::sort(to.begin(), to.end());
      to.erase(std::unique(to.begin(), to.end()), to.end());
      next.sets.push_back(closure(nfa, std::move(to)));
      if (rules_.patterns[i].wanted && next.sets.back().empty()) return std::nullopt;
    }
    for (const uint32_t name : state.names) {
      if (state.taken < forbidden_[name].size() && forbidden_[name][state.taken] == c) next.names.push_back(name);
    }
    next.taken = next.names.empty() ? 0 : state.taken + 1;
    return next;
  }

  bool accepts(const State& state) const {
    if (state.length < rules_.min && rules_.min > 0) return false;
    for (size_t i = 0; i < nfas_.size(); ++i) {
      if (std::binary_search(state.sets[i].begin(), state.sets[i].end(), nfas_[i].end) != rules_.patterns[i].wanted) return false;
    }
    return std::none_of(state.names.begin(), state.names.end(), [&](uint32_t name) { return forbidden_[name].size() == state.taken; });
  }

  NodeId reach(State state) {
    const auto [it, fresh] = known_.try_emplace(std::move(state), 0);
    if (fresh) {
      if (known_.size() > kMaxStates) throw TooLarge();
      it->second = builder_.reference();
      queue_.push_back(it);
    }
    return it->second;
  }

  const TextRules& rules_;
  Builder& builder_;
  JsonNodes& json_;
  std::vector<Nfa> nfas_;
  std::vector<std::vector<uint32_t>> forbidden_;
  std::vector<CharSet> classes_;
  std::map<State, NodeId> known_;
  std::vector<std::map<State, NodeId>::iterator> queue_;
  size_t work_ = 0;
};

}  // namespace

std::optional<NodeId> text_under_rules(const TextRules& rules, Builder& builder, JsonNodes& json) {
  try {
    return RulesAutomaton(rules, builder, json).run();
  } catch (const TooLarge&) {
    return std::nullopt;
  }
}

bool regex_finds(const Regex& regex, std::string_view text) {
  Builder builder;
  const NodeId root = regex_nodes(regex, true, builder, [&](const CharSet& set) { return builder.character(set); });
  if (!builder.accepts_anything(root)) return false;
  const Program program = builder.finish(root);
  Machine machine(program);
  StateId state = machine.start();
  for (const char c : text) state = machine.step(state, static_cast<uint8_t>(c));
  return machine.has_end(state);
}

}  // namespace frugal::text::grammar
