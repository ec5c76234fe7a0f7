// From the builder's graph to a program: loops over nothing are taken out, then all that can never end, then left recursion is
// refused. Everything here is linear in the nodes and free of recursion.
#include <algorithm>

#include "base/error.h"
#include "text/grammar/builder.h"

namespace frugal::text::grammar {

class Finisher {
 public:
  explicit Finisher(const Builder& builder)
      : nodes_(builder.nodes_), children_(builder.children_), byte_sets_(builder.byte_sets_), literals_(builder.literals_), names_(builder.group_names_) {}

  std::vector<uint8_t> nullable() const {
    return fixpoint([](NodeKind kind) { return kind == NodeKind::empty; });
  }
  std::vector<uint8_t> productive() const {
    return fixpoint([](NodeKind kind) { return kind == NodeKind::empty || kind == NodeKind::bytes || kind == NodeKind::literal; });
  }

  Program run(NodeId root) {
    nullable_ = nullable();
    make_loops_consume();
    const std::vector<uint8_t> alive = productive();
    if (!alive[root]) fail(ErrorKind::invalid_input, "grammar: no text at all is accepted");
    drop_dead_ends(alive);
    refuse_left_recursion();
    Program program = reachable_part(root);
    find_classes(program);
    find_short_groups(program);
    return program;
  }

 private:
  template <typename Visit>
  void for_each_child(const Node& node, Visit&& visit) const {
    switch (node.kind) {
      case NodeKind::sequence:
        visit(node.first);
        visit(node.second);
        break;
      case NodeKind::alternatives:
        for (uint32_t i = 0; i < node.second; ++i) visit(children_[node.first + i]);
        break;
      case NodeKind::reference:
      case NodeKind::repeat: visit(node.first); break;
      default: break;
    }
  }

  // The least set of nodes that holds the kinds of `base` and what follows from it.
  template <typename Base>
  std::vector<uint8_t> fixpoint(Base&& base) const {
    std::vector<uint32_t> start(nodes_.size() + 1), parents;
    for (const Node& node : nodes_) for_each_child(node, [&](NodeId child) { ++start[child + 1]; });
    for (size_t i = 1; i < start.size(); ++i) start[i] += start[i - 1];
    parents.resize(start.back());
    std::vector<uint32_t> fill(start.begin(), start.end() - 1);
    for (NodeId id = 0; id < nodes_.size(); ++id) for_each_child(nodes_[id], [&](NodeId child) { parents[fill[child]++] = id; });

    std::vector<uint8_t> holds(nodes_.size());
    std::vector<NodeId> work;
    const auto add = [&](NodeId id) {
      if (!holds[id]) {
        holds[id] = 1;
        work.push_back(id);
      }
    };
    for (NodeId id = 0; id < nodes_.size(); ++id) {
      const Node& node = nodes_[id];
      if (base(node.kind) || (node.kind == NodeKind::repeat && node.min == 0)) add(id);
    }
    while (!work.empty()) {
      const NodeId id = work.back();
      work.pop_back();
      for (uint32_t i = start[id]; i < start[id + 1]; ++i) {
        const Node& parent = nodes_[parents[i]];
        if (parent.kind != NodeKind::sequence || (holds[parent.first] && holds[parent.second])) add(parents[i]);
      }
    }
    return holds;
  }

  // The node for the texts of `id` but the empty one.
  NodeId nonempty(NodeId id) {
    if (!nullable_[id]) return id;
    const auto [it, fresh] = nonempty_.try_emplace(id, static_cast<NodeId>(nodes_.size()));
    if (fresh) {
      if (nodes_.size() >= 2 * Builder::kMaxNodes) fail(ErrorKind::invalid_input, "grammar: loops over optional parts need too many nodes");
      nodes_.push_back({.kind = NodeKind::never, .group = nodes_[id].group});
      nullable_.push_back(0);
      unfinished_.emplace_back(id, it->second);
    }
    return it->second;
  }

  void fill_alternatives(NodeId id, const std::vector<NodeId>& parts) {
    nodes_[id].kind = NodeKind::alternatives;
    nodes_[id].first = static_cast<uint32_t>(children_.size());
    nodes_[id].second = static_cast<uint32_t>(parts.size());
    children_.insert(children_.end(), parts.begin(), parts.end());
  }

  void fill_nonempty(NodeId from, NodeId to) {
    const Node node = nodes_[from];
    switch (node.kind) {
      case NodeKind::sequence: {
        const NodeId head = nonempty(node.first), tail = nonempty(node.second);
        const auto both = static_cast<NodeId>(nodes_.size());
        nodes_.push_back({.kind = NodeKind::sequence, .group = node.group, .first = head, .second = node.second});
        nullable_.push_back(0);
        fill_alternatives(to, {both, tail});
        break;
      }
      case NodeKind::alternatives: {
        std::vector<NodeId> parts;
        for (uint32_t i = 0; i < node.second; ++i) parts.push_back(nonempty(children_[node.first + i]));
        fill_alternatives(to, parts);
        break;
      }
      case NodeKind::reference: {
        const NodeId target = nonempty(node.first);
        nodes_[to] = {.kind = NodeKind::reference, .group = node.group, .first = target};
        break;
      }
      case NodeKind::repeat: {
        const NodeId body = nonempty(node.first);
        nodes_[to] = {.kind = NodeKind::repeat, .group = node.group, .first = body, .min = 1, .max = node.max};
        break;
      }
      default: break;  // the empty text: nothing is left
    }
  }

  // (x?){m,n} is ((x without the empty text){0,n}: every turn of a loop takes a byte.
  void make_loops_consume() {
    const size_t count = nodes_.size();
    for (NodeId id = 0; id < count; ++id) {
      if (nodes_[id].kind != NodeKind::repeat || !nullable_[nodes_[id].first]) continue;
      const NodeId body = nonempty(nodes_[id].first);
      nodes_[id].first = body;
      nodes_[id].min = 0;
    }
    while (!unfinished_.empty()) {
      const auto [from, to] = unfinished_.back();
      unfinished_.pop_back();
      fill_nonempty(from, to);
    }
  }

  void drop_dead_ends(const std::vector<uint8_t>& alive) {
    for (NodeId id = 0; id < nodes_.size(); ++id) {
      Node& node = nodes_[id];
      if (!alive[id]) continue;
      if (node.kind == NodeKind::alternatives) {
        const auto begin = children_.begin() + node.first;
        node.second = static_cast<uint32_t>(std::remove_if(begin, begin + node.second, [&](NodeId child) { return !alive[child]; }) - begin);
      } else if (node.kind == NodeKind::repeat && !alive[node.first]) {
        node = {.kind = NodeKind::empty, .group = node.group};
      }
    }
    for (NodeId id = 0; id < nodes_.size(); ++id) {
      if (!alive[id]) nodes_[id] = {};
    }
  }

  // What may stand first in a node: `pushes` where more of the node follows it.
  struct LeftEdge {
    NodeId to;
    bool pushes;
  };
  void left_edges(NodeId id, std::vector<LeftEdge>& edges) const {
    const Node& node = nodes_[id];
    edges.clear();
    if (node.kind == NodeKind::sequence) {
      edges.push_back({node.first, true});
      if (nullable_[node.first]) edges.push_back({node.second, false});
    } else {
      for_each_child(node, [&](NodeId child) { edges.push_back({child, node.kind == NodeKind::repeat}); });
    }
  }

  // Tarjan's strongly connected components over the left edges; a component with an edge that pushes would grow for ever.
  void refuse_left_recursion() const {
    const size_t count = nodes_.size();
    std::vector<uint32_t> order(count), low(count), component(count);
    std::vector<NodeId> path;
    struct Frame {
      NodeId id;
      std::vector<LeftEdge> edges;
      size_t next = 0;
    };
    std::vector<Frame> frames;
    uint32_t clock = 0, components = 0;
    const auto enter = [&](NodeId id) {
      order[id] = low[id] = ++clock;
      path.push_back(id);
      frames.push_back({id, {}});
      left_edges(id, frames.back().edges);
    };
    for (NodeId start = 0; start < count; ++start) {
      if (order[start]) continue;
      enter(start);
      while (!frames.empty()) {
        Frame& frame = frames.back();
        const NodeId id = frame.id;
        if (frame.next < frame.edges.size()) {
          const NodeId to = frame.edges[frame.next++].to;
          if (!order[to]) {
            enter(to);
          } else if (!component[to]) {
            low[id] = std::min(low[id], order[to]);
          }
          continue;
        }
        frames.pop_back();
        if (!frames.empty()) low[frames.back().id] = std::min(low[frames.back().id], low[id]);
        if (low[id] != order[id]) continue;
        ++components;
        for (NodeId member = kUnlimited; member != id;) {
          member = path.back();
          path.pop_back();
          component[member] = components;
        }
      }
    }
    std::vector<LeftEdge> edges;
    for (NodeId id = 0; id < count; ++id) {
      left_edges(id, edges);
      for (const LeftEdge& edge : edges) {
        if (!edge.pushes || component[id] != component[edge.to]) continue;
        const auto name = names_.find(nodes_[id].group);
        fail(ErrorKind::invalid_input, "grammar: left recursion{}; write it as a repetition or with the recursive part last",
             name == names_.end() ? std::string() : " in rule " + printable(name->second));
      }
    }
  }

  Program reachable_part(NodeId root) const {
    Program program;
    std::vector<uint32_t> fresh(nodes_.size(), kUnlimited), queue;
    const auto number = [&](NodeId id) {
      if (fresh[id] == kUnlimited) {
        fresh[id] = static_cast<uint32_t>(queue.size());
        queue.push_back(id);
      }
      return fresh[id];
    };
    program.root = number(root);
    for (size_t i = 0; i < queue.size(); ++i) {
      Node node = nodes_[queue[i]];
      switch (node.kind) {
        case NodeKind::sequence:
          node.first = number(node.first);
          node.second = number(node.second);
          break;
        case NodeKind::reference:
        case NodeKind::repeat: node.first = number(node.first); break;
        case NodeKind::alternatives: {
          const auto offset = static_cast<uint32_t>(program.children.size());
          for (uint32_t child = 0; child < node.second; ++child) program.children.push_back(number(children_[node.first + child]));
          node.first = offset;
          break;
        }
        default: break;
      }
      program.nodes.push_back(node);
    }
    program.byte_sets = byte_sets_;
    program.literals = literals_;
    return program;
  }

  static void find_classes(Program& program) {
    std::array<uint16_t, 256> class_of = {};
    uint16_t classes = 1;
    const auto split = [&](const ByteSet& set) {
      std::array<int, 256> inside;
      inside.fill(-1);
      std::array<uint16_t, 256> members = {}, members_inside = {};
      for (size_t b = 0; b < 256; ++b) {
        ++members[class_of[b]];
        members_inside[class_of[b]] += set[b];
      }
      for (size_t b = 0; b < 256; ++b) {
        const uint16_t old = class_of[b];
        if (!set[b] || members[old] == members_inside[old]) continue;
        if (inside[old] < 0) inside[old] = classes++;
        class_of[b] = static_cast<uint16_t>(inside[old]);
      }
    };
    std::vector<uint8_t> seen(program.byte_sets.size());
    ByteSet literal_bytes;
    for (const Node& node : program.nodes) {
      if (node.kind == NodeKind::bytes && !seen[node.first]) {
        seen[node.first] = 1;
        if (classes < 256) split(program.byte_sets[node.first]);
      } else if (node.kind == NodeKind::literal) {
        for (uint32_t i = 0; i < node.second; ++i) literal_bytes.set(static_cast<uint8_t>(program.literals[node.first + i]));
      }
    }
    for (size_t b = 0; b < 256; ++b) {
      if (literal_bytes[b]) split(ByteSet().set(b));
    }
    program.byte_of_class.resize(classes);
    for (size_t b = 0; b < 256; ++b) {
      program.class_of[b] = static_cast<uint8_t>(class_of[b]);
      program.byte_of_class[class_of[b]] = static_cast<uint8_t>(b);
    }
  }

  // The longest text of each node, kUnlimited in and above a cycle; saturates far above kShortText.
  static void find_short_groups(Program& program) {
    const size_t count = program.nodes.size();
    std::vector<uint64_t> longest(count, 0);
    std::vector<uint8_t> state(count);  // 0 new, 1 open, 2 done
    std::vector<NodeId> path;
    const auto children = [&](const Node& node, auto&& visit) {
      if (node.kind == NodeKind::sequence) visit(node.second);
      if (node.kind == NodeKind::sequence || node.kind == NodeKind::reference || node.kind == NodeKind::repeat) visit(node.first);
      for (uint32_t i = 0; node.kind == NodeKind::alternatives && i < node.second; ++i) visit(program.children[node.first + i]);
    };
    for (NodeId start = 0; start < count; ++start) {
      if (state[start] == 0) path.push_back(start);
      while (!path.empty()) {
        const NodeId id = path.back();
        const Node& node = program.nodes[id];
        if (state[id] == 0) {
          state[id] = 1;
          children(node, [&](NodeId child) {
            if (state[child] == 0) path.push_back(child);
          });
          continue;
        }
        path.pop_back();
        if (state[id] == 2) continue;
        state[id] = 2;
        uint64_t length = node.kind == NodeKind::bytes ? 1 : node.kind == NodeKind::literal ? node.second : 0;
        children(node, [&](NodeId child) {
          const uint64_t part = state[child] == 2 ? longest[child] : kUnlimited;
          length = node.kind == NodeKind::alternatives ? std::max(length, part) : length + part;
        });
        if (node.kind == NodeKind::repeat) length *= node.max;
        longest[id] = std::min<uint64_t>(length, kUnlimited);
      }
    }
    uint32_t groups = 0;
    for (const Node& node : program.nodes) groups = std::max(groups, node.group + 1);
    program.short_groups.assign(groups, 1);
    for (NodeId id = 0; id < count; ++id) {
      if (longest[id] > Program::kShortText) program.short_groups[program.nodes[id].group] = 0;
    }
  }

  std::vector<Node> nodes_;
  std::vector<NodeId> children_;
  const std::vector<ByteSet>& byte_sets_;
  const std::string& literals_;
  const std::unordered_map<uint32_t, std::string>& names_;
  std::vector<uint8_t> nullable_;
  std::unordered_map<NodeId, NodeId> nonempty_;
  std::vector<std::pair<NodeId, NodeId>> unfinished_;
};

Program Builder::finish(NodeId root) { return Finisher(*this).run(root); }

bool Builder::accepts_anything(NodeId root) const { return Finisher(*this).productive()[root] != 0; }

}  // namespace frugal::text::grammar
