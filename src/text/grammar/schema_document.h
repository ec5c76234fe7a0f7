// A JSON Schema as given: its parts by index and pointer, its references, and typed access to keywords.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace frugal::text::grammar {

class SchemaDocument {
 public:
  static constexpr size_t kMaxBytes = 256 << 10;
  static constexpr int kMaxDepth = 64;  // of the JSON text: an object's schema inside another's takes two
  static constexpr size_t kMaxParts = 10'000;

  explicit SchemaDocument(const Json& root);

  // The part of the schema at a child of `parent`; `path` is what its pointer goes on with, already escaped.
  uint32_t part(const Json& schema, uint32_t parent, const std::string& path);
  uint32_t root() const { return 0; }
  const Json& schema(uint32_t part) const { return *parts_[part].schema; }
  const std::string& pointer(uint32_t part) const { return parts_[part].pointer; }
  // What a $ref of `part` points to.
  uint32_t resolve(uint32_t part);
  // Drafts before 2019-09 ignore what stands beside a $ref.
  bool ref_stands_alone() const { return ref_stands_alone_; }

  // The keyword's value, or null. Every getter checks the type of what it reads.
  const Json* find(uint32_t part, std::string_view keyword) const;
  std::optional<uint32_t> count(uint32_t part, std::string_view keyword) const;  // a size: 0..2^32-2
  const Json* object(uint32_t part, std::string_view keyword) const;
  const Json* list(uint32_t part, std::string_view keyword, bool may_be_empty) const;

  template <typename... Args>
  [[noreturn]] void fail_at(uint32_t part, std::string_view keyword, ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) const {
    fail(kind, "{}/{}: {}", printable(pointer(part), 400), printable(keyword), fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  struct Part {
    const Json* schema;
    std::string pointer;
  };
  void check_dialect();

  std::deque<Part> parts_;
  std::unordered_map<const Json*, uint32_t> known_;
  bool ref_stands_alone_ = false;
};

std::string escape_pointer(std::string_view name);

}  // namespace frugal::text::grammar
