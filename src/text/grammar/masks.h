// Which tokens a state allows. The top of a stack down to the end of its group (a JSON text, a rule) decides about nearly all
// tokens; that part is computed once and kept. Tokens that go past it are listed by where they do, and walked on from there.
#pragma once

#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "text/grammar/machine.h"
#include "text/grammar/token_bytes.h"

namespace frugal::text::grammar {

// Not thread-safe.
class Masks {
 public:
  static constexpr size_t kMaxBytes = size_t{16} << 20;

  Masks(const Program& program, const TokenBytes& tokens, Machine& machine) : program_(&program), tokens_(&tokens), machine_(&machine) {}

  // Sets the bits of all tokens that may come next.
  void add_allowed(StateId state, std::span<uint32_t> bits);

 private:
  struct Mask {
    std::vector<uint32_t> bits;
    std::vector<uint32_t> unfinished;  // trie nodes with children at which the part is through
  };

  CellId context_of(CellId cell) const;
  const Mask& mask_of(std::span<const CellId> cells, CellId context);
  void describe(CellId cell, CellId context, std::string& key) const;
  CellId on_bottom(CellId cell, CellId context);
  void walk(StateId state, uint32_t first, uint32_t end, std::span<uint32_t> bits, std::vector<uint32_t>* unfinished);

  const Program* program_;
  const TokenBytes* tokens_;
  Machine* machine_;
  std::unordered_map<std::string, Mask> known_;
  size_t known_bytes_ = 0;
  std::vector<StateId> path_;
};

}  // namespace frugal::text::grammar
