// What an answer must look like: the fields of a request that ask for JSON, a schema, a pattern, choices or a grammar.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "serve/service.h"

namespace frugal::serve {

struct Structure {
  std::string field;  // that asks for it
  std::string key;    // the same for the same structure
  // Throws ApiError{400} that names the field, and within a schema the place: what cannot be enforced is refused, never left out.
  std::function<std::shared_ptr<const text::Grammar>()> compile;
};
// Nothing where the request asks for nothing. Throws ApiError{400} that names the field.
std::optional<Structure> asked_structure(const Json& body);

// A matcher at its beginning, null where the request asks for nothing. Compiled once for each text, the last ones kept. Throws as both above.
std::shared_ptr<const text::GrammarMatcher> structure_of(const Json& body, ServedModel& model);

}  // namespace frugal::serve
