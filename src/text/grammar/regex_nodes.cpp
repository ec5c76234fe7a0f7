#include <algorithm>

#include "text/grammar/regex.h"

namespace frugal::text::grammar {

// Nodes refer to earlier nodes only, so one pass in their order does for all that is computed bottom up.
NodeId regex_nodes(const Regex& regex, bool search, Builder& builder, const EncodeChar& encode) {
  std::vector<NodeId> made;
  for (const Regex::Node& node : regex.nodes) {
    std::vector<NodeId> parts;
    for (const uint32_t child : node.children) parts.push_back(made[child]);
    switch (node.kind) {
      case Regex::Kind::empty: made.push_back(builder.empty()); break;
      case Regex::Kind::chars: made.push_back(encode(node.set)); break;
      case Regex::Kind::sequence: made.push_back(builder.sequence(parts)); break;
      case Regex::Kind::alternatives: made.push_back(builder.alternatives(parts)); break;
      case Regex::Kind::repeat: made.push_back(builder.repeat(parts[0], node.min, node.max)); break;
    }
  }
  std::vector<NodeId> branches;
  for (const Regex::Branch& branch : regex.branches) {
    const NodeId any = search ? builder.repeat(encode(CharSet::all()), 0, kUnlimited) : builder.empty();
    const NodeId before = branch.at_start ? builder.empty() : any, after = branch.at_end ? builder.empty() : any;
    branches.push_back(builder.sequence({before, made[branch.root], after}));
  }
  return builder.alternatives(branches);
}

RegexLength regex_length(const Regex& regex, bool search) {
  const auto add = [](uint64_t a, uint64_t b) { return std::min<uint64_t>(a + b, kUnlimited); };
  std::vector<RegexLength> lengths;
  for (const Regex::Node& node : regex.nodes) {
    RegexLength length;
    switch (node.kind) {
      case Regex::Kind::empty: break;
      case Regex::Kind::chars: length = {1, 1}; break;
      case Regex::Kind::sequence:
        for (const uint32_t child : node.children) length = {add(length.min, lengths[child].min), add(length.max, lengths[child].max)};
        break;
      case Regex::Kind::alternatives:
        length.min = kUnlimited;
        for (const uint32_t child : node.children) length = {std::min(length.min, lengths[child].min), std::max(length.max, lengths[child].max)};
        break;
      case Regex::Kind::repeat: {
        const RegexLength& body = lengths[node.children[0]];
        length.min = std::min<uint64_t>(body.min * node.min, kUnlimited);
        length.max = body.max == 0 ? 0 : std::min<uint64_t>(body.max * node.max, kUnlimited);
        break;
      }
    }
    lengths.push_back(length);
  }
  RegexLength result{kUnlimited, 0};
  for (const Regex::Branch& branch : regex.branches) {
    const bool open = search && !(branch.at_start && branch.at_end);
    result = {std::min(result.min, lengths[branch.root].min), open ? kUnlimited : std::max(result.max, lengths[branch.root].max)};
  }
  return result;
}

}  // namespace frugal::text::grammar
