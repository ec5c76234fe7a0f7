// The fields of a request for text: one table of names, types and ranges, which the parser, the docs and the tests share.
#pragma once

#include <functional>
#include <initializer_list>
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

// Prompts and inputs: a text, a list of texts, a list of token ids, or a list of such lists. Calls `text` or `ids` for each in order, with its name
// ("input[3]"). Throws ApiError{400} naming `field` for other values and for more than `most`.
void read_texts(const std::string& field, const Json& value, size_t most, const std::function<void(const std::string& name, const std::string& text)>& text,
                const std::function<void(const std::string& name, const Json& ids)>& ids);
// Throws ApiError{400}: a text is longer than the model takes; `about` stands before a count that is none.
[[noreturn]] void refuse_length(std::string_view field, int64_t count, int64_t most, std::string_view about = {});
// What `encode` makes of a text, given how many tokens it may have: `most`. Throws ApiError{400} that names `field` and both numbers where it has
// more; a text of more than twice as many is not read to its end.
std::vector<int32_t> encode_within(std::string_view field, int64_t most, const std::function<std::vector<int32_t>(size_t limit)>& encode);
// For endpoints whose fields are not in the table: a line in the log for each of the first that is none of `known`.
void log_unknown(const Json& body, const std::function<bool(std::string_view)>& known);
void log_unknown(const Json& body, std::initializer_list<std::string_view> known);

}  // namespace frugal::serve
