#include "serve/fields.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/log.h"
#include "base/options.h"
#include "engine/model_sampling.h"
#include "serve/api.h"
#include "serve/catalog.h"
#include "text/tokenizer.h"

namespace frugal::serve {
namespace {

constexpr double kExact = 9007199254740991.0;  // 2^53 - 1: what is rounded to it is it
constexpr size_t kMostStops = 64, kLongestStop = 256, kMostStopIds = 128, kMostBiases = 1024;

Field sampled(std::string_view name, FieldType type, double min, double max, std::string_view option, std::string_view help) {
  return {name, type, min, max, FieldUse::sampling, option, {}, help};
}
Field read(std::string_view name, FieldType type, double min, double max, std::string_view help) {
  return {name, type, min, max, FieldUse::read, {}, {}, help};
}
Field read(std::string_view name, FieldType type, std::string_view help) { return {name, type, 0, 0, FieldUse::read, {}, {}, help}; }
Field ignored(std::string_view name) { return {.name = name, .use = FieldUse::ignored}; }
Field absent(std::string_view name, std::string_view fallback) { return {.name = name, .use = FieldUse::absent, .fallback = fallback}; }

std::string_view name_of(FieldType type) {
  switch (type) {
    case FieldType::integer: return "an integer";
    case FieldType::number: return "a number";
    case FieldType::boolean: return "true or false";
    case FieldType::text: return "a string";
    case FieldType::other: break;
  }
  return "a value";
}

void check(const Field& field, const Json& value) {
  const auto wrong_type = [&] { refuse(field.name, fmt::format(" must be {}, is {}", name_of(field.type), printable(dump(value)))); };
  const auto outside = [&] { refuse(field.name, fmt::format(" must be in {:.15g}..{:.15g}, is {}", field.min, field.max, printable(dump(value)))); };
  switch (field.type) {
    case FieldType::integer:
    case FieldType::number: {
      if (!value.is_number()) wrong_type();
      const double number = value.get<double>();
      if (field.type == FieldType::integer && number != std::floor(number)) wrong_type();
      if (!(number >= field.min && number <= field.max)) outside();
      break;
    }
    case FieldType::boolean:
      if (!value.is_boolean()) wrong_type();
      break;
    case FieldType::text:
      if (!value.is_string()) wrong_type();
      break;
    case FieldType::other: break;
  }
}

std::vector<std::string> read_stop(const Json& value) {
  std::vector<std::string> stops;
  for (const Json& stop : value.is_array() ? value : Json::array({value})) {
    if (!stop.is_string()) refuse("stop", " must be a string or a list of strings");
    stops.push_back(stop.get<std::string>());
    if (stops.back().size() > kLongestStop) refuse("stop", fmt::format(" has a string of {} bytes, {} are allowed", stops.back().size(), kLongestStop));
  }
  if (stops.size() > kMostStops) refuse("stop", fmt::format(" has {} strings, {} are allowed", stops.size(), kMostStops));
  return stops;
}

std::vector<std::pair<int32_t, float>> read_biases(const Json& value, int64_t vocabulary) {
  if (!value.is_object()) refuse("logit_bias", " must be an object of token ids and numbers");
  if (value.size() > kMostBiases) refuse("logit_bias", fmt::format(" has {} entries, {} are allowed", value.size(), kMostBiases));
  std::vector<std::pair<int32_t, float>> biases;
  for (const auto& [key, bias] : value.items()) {
    int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 || id >= vocabulary) {
      refuse("logit_bias", fmt::format(" has the key \"{}\", token ids are 0..{}", printable(key), vocabulary - 1));
    }
    if (!bias.is_number() || !(std::abs(bias.get<double>()) <= 100)) refuse("logit_bias", fmt::format(" of {} must be a number in -100..100", id));
    biases.emplace_back(id, bias.get<float>());
  }
  return biases;
}

}  // namespace

int32_t token_id(std::string_view field, const Json& value, int64_t vocabulary) {
  if (!value.is_number_integer() || value.get<double>() < 0 || value.get<double>() >= static_cast<double>(vocabulary)) {
    refuse(field, fmt::format(" has the token id {}, ids are 0..{}", printable(dump(value)), vocabulary - 1));
  }
  return value.get<int32_t>();
}

const std::vector<Field>& request_fields() {
  using enum FieldType;
  constexpr double kMost32 = 2147483647.0;
  static const std::vector<Field> fields = {
      sampled("temperature", number, 0, 2, "temp", "0: the likeliest token"),
      sampled("top_p", number, 1e-6, 1, "top-p", "Tokens that together have this probability"),
      sampled("top_k", integer, -1, kMost32, "top-k", "So many of the likeliest tokens (-1 and 0: all)"),
      sampled("min_p", number, 0, 1, "min-p", "Tokens of at least this share of the likeliest one's probability"),
      sampled("typical_p", number, 1e-6, 1, "typical-p", "Locally typical tokens"),
      sampled("presence_penalty", number, -2, 2, "presence-penalty", "Subtracted for tokens that occurred"),
      sampled("frequency_penalty", number, -2, 2, "frequency-penalty", "Subtracted for each time that a token occurred"),
      sampled("repetition_penalty", number, 1e-2, 2, "repeat-penalty", "Divides the logits of tokens that occurred"),
      read("seed", integer, -1, kExact, "Of the draws (-1: another one each time)"),
      read("n", integer, 1, 8, "Choices"),
      read("best_of", integer, 1, 8, "The same as n, or absent"),
      read("max_tokens", integer, 0, kMost32, "Most tokens of an answer"),
      read("max_completion_tokens", integer, 0, kMost32, "The same, newer name"),
      read("min_tokens", integer, 0, kMost32, "Before that many no end is drawn"),
      read("stop", other, "A string or up to 64 that end the answer"),
      read("stop_token_ids", other, "Token ids that end the answer"),
      read("include_stop_str_in_output", boolean, "The answer keeps the string that ended it"),
      read("ignore_eos", boolean, "The model's end is a token like others"),
      read("skip_special_tokens", boolean, "Special tokens are not text (default true)"),
      read("logit_bias", other, "Token id: what is added to its logit"),
      read("logprobs", other, "Log-probabilities: true, or how many (completions)"),
      read("top_logprobs", integer, 0, 20, "Of so many of the likeliest tokens"),
      read("stream", boolean, "Events as the text comes"),
      read("stream_options", other, "include_usage: one more event with the usage"),
      read("model", text, "One that the server has"),
      read("messages", other, "The conversation"),
      read("prompt", other, "A text, token ids, or a list of them"),
      read("echo", boolean, "The answer begins with the prompt"),
      read("response_format", other, "{\"type\": \"text\"}, \"json_object\", or \"json_schema\" with a schema"),
      read("structured_outputs", other, "One of json, regex, choice, grammar, json_object (vLLM)"),
      read("guided_json", other, "A JSON schema (vLLM)"),
      read("guided_regex", text, "A pattern for the whole answer (vLLM)"),
      read("guided_choice", other, "Texts of which the answer is one (vLLM)"),
      read("guided_grammar", text, "A grammar in GBNF (vLLM)"),
      read("regex", text, "A pattern for the whole answer (SGLang)"),
      read("ebnf", text, "A grammar in GBNF (SGLang)"),
      read("grammar", text, "A grammar in GBNF (llama.cpp)"),
      read("json_schema", other, "A JSON schema (llama.cpp)"),
      read("tools", other, "Functions that the model may call"),
      read("tool_choice", other, "\"none\", \"auto\", \"required\", or one function"),
      read("parallel_tool_calls", boolean, "An answer may hold several calls (default true)"),
      read("reasoning_effort", text, "For templates that read it; \"none\" also turns thinking off"),
      read("chat_template_kwargs", other, "Variables of the chat template"),
      read("add_generation_prompt", boolean, "The prompt ends where the assistant begins (default true)"),
      ignored("user"),
      ignored("metadata"),
      ignored("store"),
      ignored("service_tier"),
      ignored("safety_identifier"),
      ignored("prompt_cache_key"),
      ignored("verbosity"),
      absent("suffix", "\"\""),
      absent("functions", "[]"),
      absent("function_call", "\"none\""),
      absent("modalities", "[\"text\"]"),
      absent("audio", "null"),
      absent("prediction", "null"),
      absent("web_search_options", "null"),
  };
  return fields;
}

void log_unknown(const Json& body, const std::function<bool(std::string_view)>& known) {
  int unknown = 0;
  for (const auto& [key, value] : body.items()) {
    if (!known(key) && ++unknown <= 8) log_info("request field \"{}\" is not known and ignored", printable(key));
  }
}

void read_texts(const std::string& field, const Json& value, size_t most, const std::function<void(const std::string& name, const std::string& text)>& text,
                const std::function<void(const std::string& name, const Json& ids)>& ids) {
  if (value.is_string()) return text(field, value.get_ref<const std::string&>());
  if (!value.is_array() || value.empty()) refuse(field, " must be a text, token ids, or a list of texts or of lists of token ids");
  if (value.front().is_number()) return ids(field, value);
  if (value.size() > most) refuse(field, fmt::format(" has {} entries, {} are allowed", value.size(), most));
  for (size_t i = 0; i < value.size(); ++i) {
    const Json& one = value[i];
    if (one.is_string() != value.front().is_string() || (!one.is_string() && !one.is_array()))
      refuse(field, " must be a list of texts or a list of lists of token ids");
    const std::string name = fmt::format("{}[{}]", field, i);
    if (one.is_string())
      text(name, one.get_ref<const std::string&>());
    else
      ids(name, one);
  }
}

void refuse_length(std::string_view field, int64_t count, int64_t most, std::string_view about) {
  throw ApiError(400, fmt::format("{} has {}{} tokens, the model takes {}", field, about, count, most), std::string(field), kTooLong);
}

std::vector<int32_t> encode_within(std::string_view field, int64_t most, const std::function<std::vector<int32_t>(size_t limit)>& encode) {
  // Up to twice as much is counted, so that the error says how much there is to leave out.
  constexpr int64_t kCounted = 2;
  std::vector<int32_t> ids;
  try {
    ids = encode(static_cast<size_t>(kCounted * most));
  } catch (const text::TooManyTokens& error) {
    refuse_length(field, static_cast<int64_t>(error.at_least), most, "at least ");
  }
  if (std::ssize(ids) > most) refuse_length(field, std::ssize(ids), most);
  return ids;
}

void log_unknown(const Json& body, std::initializer_list<std::string_view> known) {
  log_unknown(body, [&](std::string_view name) { return std::ranges::find(known, name) != known.end(); });
}

engine::Request read_request(const Json& body, ServedModel& served) {
  served.require_generation();
  const std::vector<Field>& fields = request_fields();
  RawOptions raw = served.sampling;
  log_unknown(body, [&](std::string_view name) { return std::ranges::find(fields, name, &Field::name) != fields.end(); });
  for (const auto& [key, value] : body.items()) {
    const auto field = std::ranges::find(fields, std::string_view(key), &Field::name);
    if (field == fields.end()) continue;
    if (value.is_null() || field->use == FieldUse::ignored) continue;
    if (field->use == FieldUse::absent && value != parse_json(field->fallback, field->name)) refuse(field->name, " is not supported");
    check(*field, value);
    if (field->use != FieldUse::sampling) continue;
    std::erase_if(raw, [&](const auto& pair) { return pair.first == field->option; });
    raw.emplace_back(field->option, field->type == FieldType::integer ? std::to_string(static_cast<int64_t>(value.get<double>()))
                                                                      : fmt::format("{:.9g}", value.get<double>()));
  }
  const auto integer_or = [&](const char* key, int64_t fallback) {
    return given(body, key) ? static_cast<int64_t>(given(body, key)->get<double>()) : fallback;
  };
  const auto boolean_or = [&](const char* key, bool fallback) { return given(body, key) ? given(body, key)->get<bool>() : fallback; };
  const int64_t vocabulary = engine::sampled_vocab(served.loaded);

  engine::Request request;
  request.sampling = engine::sampling_params(Options("sampling", engine::sampling_options(), raw));
  request.sampling.seed = integer_or("seed", -1);
  request.choices = integer_or("n", 1);
  if (integer_or("best_of", request.choices) != request.choices) refuse("best_of", " must be n");
  request.max_tokens = integer_or("max_completion_tokens", integer_or("max_tokens", -1));
  request.min_tokens = integer_or("min_tokens", 0);
  if (given(body, "stop")) request.stop = read_stop(*given(body, "stop"));
  if (const Json* ids = given(body, "stop_token_ids")) {
    if (!ids->is_array() || ids->size() > kMostStopIds) refuse("stop_token_ids", fmt::format(" must be a list of at most {} token ids", kMostStopIds));
    for (const Json& id : *ids) request.stop_ids.push_back(token_id("stop_token_ids", id, vocabulary));
  }
  if (given(body, "logit_bias")) request.sampling.logit_bias = read_biases(*given(body, "logit_bias"), vocabulary);
  request.include_stop = boolean_or("include_stop_str_in_output", false);
  request.ignore_end = boolean_or("ignore_eos", false);
  request.show_special = !boolean_or("skip_special_tokens", true);
  if (const Json* options = given(body, "stream_options")) {
    if (!options->is_object()) refuse("stream_options", " must be an object");
    if (!boolean_or("stream", false)) refuse("stream_options", " needs stream");
  }
  return request;
}

}  // namespace frugal::serve
