#include "serve/structure.h"

#include <algorithm>

#include "text/grammar/grammar.h"

namespace frugal::serve {
namespace {

using text::Grammar;

enum class Source { json_object, json_schema, regex, choice, gbnf };
struct Wanted {
  std::string field;
  Source source = Source::json_object;
  Json value;
};

std::string text_of(const Wanted& wanted) {
  if (!wanted.value.is_string()) throw ApiError(400, wanted.field + " must be a string", wanted.field);
  return wanted.value.get<std::string>();
}

std::shared_ptr<const Grammar> compiled(const Wanted& wanted) {
  switch (wanted.source) {
    case Source::json_object: return Grammar::json_object();
    case Source::json_schema:
      return wanted.value.is_string() ? Grammar::from_json_schema_text(text_of(wanted), text::Undeclared::left_out)
                                      : Grammar::from_json_schema(wanted.value, text::Undeclared::left_out);
    case Source::regex: return Grammar::from_regex(text_of(wanted));
    case Source::gbnf: return Grammar::from_gbnf(text_of(wanted));
    case Source::choice: break;
  }
  if (!wanted.value.is_array()) throw ApiError(400, wanted.field + " must be a list of strings", wanted.field);
  std::vector<std::string> choices;
  for (const Json& choice : wanted.value) {
    if (!choice.is_string()) throw ApiError(400, wanted.field + " must be a list of strings", wanted.field);
    choices.push_back(choice.get<std::string>());
  }
  return Grammar::from_choices(choices);
}

void add_if_given(std::vector<Wanted>& all, const Json& from, const char* name, const std::string& field, Source source) {
  const auto found = from.find(name);
  if (found != from.end() && !found->is_null()) all.push_back({field, source, *found});
}

void add_response_format(std::vector<Wanted>& all, const Json& body) {
  const std::string field = "response_format";
  const auto format = body.find(field);
  if (format == body.end() || format->is_null()) return;
  const Json type = format->is_object() ? format->value("type", Json(nullptr)) : Json(nullptr);
  if (type == "json_object" && format->contains("schema")) return add_if_given(all, *format, "schema", field, Source::json_schema);
  if (type == "json_object") return all.push_back({field, Source::json_object, true});
  if (type == "text") return;
  if (type != "json_schema") throw ApiError(400, "response_format.type must be text, json_object or json_schema", field);
  const Json holder = format->value("json_schema", Json(nullptr));
  if (!holder.is_object() || !holder.contains("schema")) throw ApiError(400, "response_format.json_schema.schema is missing", field);
  add_if_given(all, holder, "schema", field, Source::json_schema);
}

void add_structured_outputs(std::vector<Wanted>& all, const Json& body) {
  const std::string field = "structured_outputs";
  const auto outputs = body.find(field);
  if (outputs == body.end() || outputs->is_null()) return;
  if (!outputs->is_object()) throw ApiError(400, "structured_outputs must be an object", field);
  static const std::vector<std::string> known = {"json", "regex", "choice", "grammar", "json_object"};
  for (const auto& [key, value] : outputs->items()) {
    if (std::ranges::find(known, key) == known.end() && !value.is_null()) {
      throw ApiError(400, fmt::format("structured_outputs.{} is not supported", printable(key)), field);
    }
  }
  add_if_given(all, *outputs, "json", field, Source::json_schema);
  add_if_given(all, *outputs, "regex", field, Source::regex);
  add_if_given(all, *outputs, "choice", field, Source::choice);
  add_if_given(all, *outputs, "grammar", field, Source::gbnf);
  if (outputs->value("json_object", Json(false)) == true) all.push_back({field, Source::json_object, true});
}

// What is wrong with a structure is so with the field that asks for it.
template <typename Make>
auto naming(const std::string& field, const Make& make) {
  try {
    return make();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::internal || error.kind() == ErrorKind::out_of_memory) throw;
    throw ApiError(400, fmt::format("{}: {}", field, error.what()), field);
  }
}

}  // namespace

std::optional<Structure> asked_structure(const Json& body) {
  std::vector<Wanted> all;
  add_response_format(all, body);
  add_structured_outputs(all, body);
  add_if_given(all, body, "guided_json", "guided_json", Source::json_schema);
  add_if_given(all, body, "guided_regex", "guided_regex", Source::regex);
  add_if_given(all, body, "guided_choice", "guided_choice", Source::choice);
  add_if_given(all, body, "guided_grammar", "guided_grammar", Source::gbnf);
  add_if_given(all, body, "json_schema", "json_schema", Source::json_schema);
  add_if_given(all, body, "regex", "regex", Source::regex);
  add_if_given(all, body, "ebnf", "ebnf", Source::gbnf);
  add_if_given(all, body, "grammar", "grammar", Source::gbnf);
  if (all.empty()) return std::nullopt;
  if (all.size() > 1) throw ApiError(400, fmt::format("{} and {} both say what the answer must be", all[0].field, all[1].field), all[1].field);
  const Wanted& wanted = all.front();
  const auto compile = [wanted] { return naming(wanted.field, [&] { return compiled(wanted); }); };
  return Structure{wanted.field, fmt::format("{}:{}", static_cast<int>(wanted.source), dump(wanted.value)), compile};
}

std::shared_ptr<const text::GrammarMatcher> structure_of(const Json& body, ServedModel& model) {
  const std::optional<Structure> structure = asked_structure(body);
  if (!structure) return nullptr;
  return naming(structure->field, [&] { return model.matcher(structure->key, false, structure->compile); });
}

}  // namespace frugal::serve
