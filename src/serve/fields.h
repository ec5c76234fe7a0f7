// The fields of a request for text: one table of names, types and ranges, which the parser, the docs and the tests share.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "engine/request.h"

namespace frugal::serve {

struct ServedModel;

enum class FieldType { integer, number, boolean, text, other };
enum class FieldUse {
  sampling,  // goes to the sampler under `option`
  read,      // the endpoint or fields.cpp reads it
  ignored,   // OpenAI's, without meaning here, whatever its value
  absent     // OpenAI's, not supported: refused unless it has its default
};

struct Field {
  std::string_view name;
  FieldType type = FieldType::other;
  double min = 0, max = 0;  // integer and number; inclusive
  FieldUse use = FieldUse::read;
  std::string_view option = {};    // of engine::sampling_options()
  std::string_view fallback = {};  // absent: the JSON of the value that is the same as none
  std::string_view help = {};
};
const std::vector<Field>& request_fields();

// Checks every known field of `body` against the table, logs unknown ones, and fills in what all endpoints share; prompt, log-probabilities
// and the form of the answer are theirs. Throws ApiError{400} that names the field.
engine::Request read_request(const Json& body, ServedModel& model);

}  // namespace frugal::serve
