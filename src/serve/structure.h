// What an answer must look like: the fields of a request that ask for JSON, a schema, a pattern, choices or a grammar.
#pragma once

#include <memory>

#include "serve/service.h"

namespace frugal::serve {

// A matcher at its beginning, null where the request asks for nothing. Compiled once for each text, the last ones kept. Throws ApiError{400}
// that names the field, and within a schema the place: what cannot be enforced is refused, never left out.
std::shared_ptr<const text::GrammarMatcher> structure_of(const Json& body, ServedModel& model);

}  // namespace frugal::serve
