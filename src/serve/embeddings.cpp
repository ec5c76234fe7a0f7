// Vectors of texts (OpenAI's /v1/embeddings, Ollama's /api/embed and /api/embeddings) and how well documents answer a query (the rerank of Jina
// and Cohere, vLLM's /score): a cross-encoder scores each pair; with any other model the score is the cosine of the two vectors.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "serve/fields.h"
#include "serve/service.h"
#include "text/tokenizer.h"

namespace frugal::serve {
namespace {

using engine::Embedded;
using engine::EmbedText;

constexpr size_t kMostInputs = 2048;

int64_t integer_or(const Json& body, const char* field, int64_t otherwise, int64_t min, int64_t max) {
  const Json* const value = given(body, field);
  if (!value) return otherwise;
  const bool huge = value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  if (!value->is_number_integer() || huge || *value < min || *value > max) {
    throw ApiError(400, fmt::format("{} must be an integer in {}..{}", field, min, max), field);
  }
  return value->get<int64_t>();
}

// Ids of texts, and what is done with those that the model cannot take whole.
class TextReader {
 public:
  // limit: tokens that longer texts are cut to; 0: they are refused.
  TextReader(const ServedModel& model, int64_t limit) : model_(model), tokenizer_(*model.loaded.tokenizer), limit_(limit) {
    special_ = tokenizer_.encode("");
    const text::SpecialTokens& special = tokenizer_.special();
    closes_ = special.add_eos && !special_.empty() && special_.back() == special.eos;
  }

  EmbedText text(const std::string& field, const std::string& text) const { return fitting(field, {encode(field, text)}, closes_ ? 1 : 0); }

  EmbedText ids(const std::string& field, const Json& list) const {
    EmbedText result;
    for (const Json& id : list) result.tokens.push_back(token_id(field, id, model_.vocabulary()));
    return fitting(field, std::move(result), 0);
  }

  // [CLS] first [SEP] second [SEP], the second text of token type 1 and of `most` tokens.
  EmbedText pair(const std::string& field, const std::string& first, const std::string& second, int64_t most) const {
    if (special_.size() != 2 || !closes_) throw ApiError(400, "the model's tokenizer has no form for pairs of texts", "model");
    EmbedText result{encode(field, first)};
    result.second = std::ssize(result.tokens);
    std::vector<int32_t> rest = tokenizer_.encode(second, {.add_special = false});
    if (std::ssize(rest) > most) rest.resize(static_cast<size_t>(most));
    result.tokens.insert(result.tokens.end(), rest.begin(), rest.end());
    result.tokens.push_back(special_.back());
    const int64_t begun = result.second;
    result = fitting(field, std::move(result), 1);
    if (std::ssize(result.tokens) <= begun) throw ApiError(400, fmt::format("{}: the query's {} tokens leave no room for a document", field, begun), field);
    return result;
  }

 private:
  std::vector<int32_t> encode(const std::string& field, const std::string& text) const {
    if (limit_ > 0) return tokenizer_.encode(text);
    return encode_within(field, model_.embedder->max_tokens(), [&](size_t limit) { return tokenizer_.encode(text, {.limit = limit}); });
  }

  EmbedText fitting(const std::string& field, EmbedText text, int64_t ending) const {
    const int64_t size = std::ssize(text.tokens), most = model_.embedder->max_tokens();
    if (size == 0) throw ApiError(400, field + " has no tokens", field);
    if (limit_ == 0 && size > most) refuse_length(field, size, most);
    if (limit_ == 0 || size <= limit_) return text;
    if (limit_ < std::ssize(special_))
      throw ApiError(400, fmt::format("{} tokens are fewer than those around a text, {}", limit_, special_.size()), "truncate_prompt_tokens");
    const std::vector<int32_t> end(text.tokens.end() - ending, text.tokens.end());
    text.tokens.resize(static_cast<size_t>(limit_ - ending));
    text.tokens.insert(text.tokens.end(), end.begin(), end.end());
    return text;
  }

  const ServedModel& model_;
  const text::Tokenizer& tokenizer_;
  int64_t limit_;
  std::vector<int32_t> special_;  // around a text
  bool closes_ = false;           // the last of them comes after it
};

// vLLM's field: the tokens that texts are cut to, -1: what the model takes. Absent: 0.
int64_t cut_of(const Json& body, const ServedModel& model) {
  const int64_t most = model.embedder->max_tokens();
  const int64_t cut = integer_or(body, "truncate_prompt_tokens", 0, -1, most);
  if (cut == 0 && given(body, "truncate_prompt_tokens")) throw ApiError(400, "truncate_prompt_tokens must be -1 or at least 1", "truncate_prompt_tokens");
  return cut == -1 ? most : cut;
}

void require_vectors(const ServedModel& model) {
  if (model.embedder->scores_pairs()) {
    throw ApiError(400, fmt::format("{}: this model scores pairs of texts (/v1/rerank, /score); it makes no embeddings", model.name), "model");
  }
}

std::vector<EmbedText> inputs_of(const Json& input, const TextReader& reader) {
  std::vector<EmbedText> texts;
  read_texts(
      "input", input, kMostInputs, [&](const std::string& name, const std::string& text) { texts.push_back(reader.text(name, text)); },
      [&](const std::string& name, const Json& ids) { texts.push_back(reader.ids(name, ids)); });
  return texts;
}

int64_t tokens_in(const std::vector<EmbedText>& texts) {
  int64_t count = 0;
  for (const EmbedText& text : texts) count += std::ssize(text.tokens);
  return count;
}

// Computes, then writes the answer on a worker, unless the client has left.
void answer_with(Call& call, const std::shared_ptr<ServedModel>& model, std::vector<EmbedText> texts, std::function<std::string(Embedded)> write) {
  Service& service = call.service;
  const auto failed = [response = call.response, shape = call.error_shape](const std::exception& error) { response->send(answer_of(error, shape)); };
  engine::EmbedRequest request;
  request.texts = std::move(texts);
  request.wanted = [response = call.response] { return !response->gone(); };
  request.failed = failed;
  request.done = [&service, model, failed, response = call.response, write = std::move(write)](Embedded result) {
    service.whole_request.add(result.seconds);
    service.post([failed, response, write, result = std::make_shared<Embedded>(std::move(result))] {
      try {
        for (const float value : result->values) {
          if (!std::isfinite(value)) fail(ErrorKind::internal, "the model computes numbers that are not finite");
        }
        response->send(200, {{"Content-Type", "application/json"}}, write(std::move(*result)));
      } catch (const std::exception& error) {
        failed(error);
      }
    });
  };
  model->embedder->submit(std::move(request));
}

// ---- vectors --------------------------------------------------------------------------------------------------------

// The length that a request asks for. A vector may be cut if the model was trained for it.
size_t dimensions_of(const Json& body, const ServedModel& model) {
  const int64_t width = model.width(), wanted = integer_or(body, "dimensions", width, 1, width);
  if (wanted == width) return static_cast<size_t>(width);
  const nn::EmbeddingSpec& spec = model.loaded.embedding;
  const bool listed = spec.matryoshka_dimensions.empty() || std::ranges::find(spec.matryoshka_dimensions, wanted) != spec.matryoshka_dimensions.end();
  if (spec.matryoshka && listed) return static_cast<size_t>(wanted);
  throw ApiError(400,
                 spec.matryoshka ? fmt::format("dimensions must be one of {}", dump(Json(spec.matryoshka_dimensions)))
                                 : fmt::format("dimensions must be {}: vectors of this model cannot be shortened, it has no Matryoshka representation", width),
                 "dimensions");
}

// The vector of text `index`, its first `dimensions` numbers, and then of length 1 again.
std::vector<float> vector_of(const Embedded& result, size_t index, size_t dimensions) {
  const auto first = result.values.begin() + static_cast<std::ptrdiff_t>(index * result.width);
  std::vector<float> vector(first, first + static_cast<std::ptrdiff_t>(dimensions));
  if (dimensions == result.width) return vector;
  double sum = 0;
  for (const float value : vector) sum += static_cast<double>(value) * value;
  const double scale = sum > 0 ? 1 / std::sqrt(sum) : 0;
  for (float& value : vector) value = static_cast<float>(value * scale);
  return vector;
}

// JSON by hand: there may be a million numbers.
std::string numbers(const std::vector<float>& values) {
  fmt::memory_buffer out;
  for (const float value : values) fmt::format_to(std::back_inserter(out), "{}{}", out.size() == 0 ? '[' : ',', value);
  return fmt::to_string(out) + "]";
}

std::string base64(const std::vector<float>& values) {
  static constexpr char kLetters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  static_assert(std::endian::native == std::endian::little);
  std::vector<unsigned char> bytes(values.size() * sizeof(float));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  std::string out = "\"";
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t left = std::min<size_t>(3, bytes.size() - i);
    uint32_t group = 0;
    for (size_t j = 0; j < 3; ++j) group = group << 8 | (j < left ? bytes[i + j] : 0U);
    for (size_t j = 0; j < 4; ++j) out += j <= left ? kLetters[group >> (18 - 6 * j) & 63] : '=';
  }
  return out + "\"";
}

void embeddings(Call& call) {
  const Json body = call.body();
  const std::shared_ptr<ServedModel> model = call.service.model_of(body);
  require_vectors(*model);
  log_unknown(body, {"model", "input", "encoding_format", "dimensions", "truncate_prompt_tokens", "user"});
  const Json* const format = given(body, "encoding_format");
  if (format && *format != "float" && *format != "base64") throw ApiError(400, "encoding_format must be \"float\" or \"base64\"", "encoding_format");
  const bool floats = !format || *format == "float";
  const size_t dimensions = dimensions_of(body, *model);
  const Json* const input = given(body, "input");
  if (!input) throw ApiError(400, "input is missing", "input");
  std::vector<EmbedText> texts = inputs_of(*input, TextReader(*model, cut_of(body, *model)));
  const int64_t tokens = tokens_in(texts);
  const size_t count = texts.size();
  Json rest = {{"id", "embd-" + new_id()},
               {"created", call.service.options().clock->unix_time()},
               {"model", model->name},
               {"usage", {{"prompt_tokens", tokens}, {"total_tokens", tokens}}}};
  answer_with(call, model, std::move(texts), [=, rest = std::move(rest)](const Embedded& result) {
    std::string out = R"({"object":"list","data":[)";
    for (size_t i = 0; i < count; ++i) {
      const std::vector<float> vector = vector_of(result, i, dimensions);
      out += fmt::format(R"({}{{"object":"embedding","index":{},"embedding":{}}})", i > 0 ? "," : "", i, floats ? numbers(vector) : base64(vector));
    }
    return out + "]," + dump(rest).substr(1);
  });
}

// Ollama's two: `input` gives `embeddings`, the older `prompt` gives `embedding`.
void ollama_embed(Call& call, bool old) {
  const char* const field = old ? "prompt" : "input";
  const Json body = call.body();
  const std::shared_ptr<ServedModel> model = ollama_model(call, body);
  require_vectors(*model);
  log_unknown(body, {"model", "name", "input", "prompt", "truncate", "options", "keep_alive", "dimensions"});
  const size_t dimensions = dimensions_of(body, *model);
  const Json* const input = given(body, field);
  const auto wrong = [&] { throw ApiError(400, fmt::format("{} must be a string{}", field, old ? "" : " or a list of strings"), field); };
  if (!input || (!input->is_string() && (old || !input->is_array()))) wrong();
  std::vector<EmbedText> texts;
  const bool cut = old || flag(body, "truncate", true);
  const TextReader reader(*model, cut ? model->embedder->max_tokens() : 0);
  if (input->is_string()) {
    if (!input->get_ref<const std::string&>().empty()) texts.push_back(reader.text(field, *input));  // "": how its clients load a model
  } else {
    if (input->size() > kMostInputs) throw ApiError(400, fmt::format("input has {} entries, {} are allowed", input->size(), kMostInputs), "input");
    for (size_t i = 0; i < input->size(); ++i) {
      if (!(*input)[i].is_string()) wrong();
      texts.push_back(reader.text(fmt::format("input[{}]", i), (*input)[i].get_ref<const std::string&>()));
    }
  }
  const int64_t tokens = tokens_in(texts);
  const auto write = [=, name = model->name, count = texts.size()](const Embedded& result) {
    std::string vectors;
    for (size_t i = 0; i < count; ++i) vectors += (i > 0 ? "," : "") + numbers(vector_of(result, i, dimensions));
    if (old) return fmt::format(R"({{"embedding":{}}})", count > 0 ? vectors : "[]");
    return fmt::format(R"({{"model":{},"embeddings":[{}],"total_duration":{},"load_duration":0,"prompt_eval_count":{}}})", dump(name), vectors,
                       static_cast<int64_t>(result.seconds * 1e9), tokens);
  };
  if (texts.empty()) return call.response->send(200, {{"Content-Type", "application/json"}}, write({}));
  answer_with(call, model, std::move(texts), write);
}

// ---- scores ---------------------------------------------------------------------------------------------------------

std::string text_of(const std::string& field, const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object() && value.contains("text") && value["text"].is_string()) return value["text"].get<std::string>();
  throw ApiError(400, field + " must be a text or an object with one", field);
}

std::vector<std::string> texts_of(const std::string& field, const Json* value) {
  if (!value) throw ApiError(400, field + " is missing", field);
  if (!value->is_array()) return {text_of(field, *value)};
  if (value->empty() || value->size() > kMostInputs) {
    throw ApiError(400, fmt::format("{} has {} entries, 1..{} are allowed", field, value->size(), kMostInputs), field);
  }
  std::vector<std::string> texts;
  for (size_t i = 0; i < value->size(); ++i) texts.push_back(text_of(fmt::format("{}[{}]", field, i), (*value)[i]));
  return texts;
}

// Texts to score, of which the first list has one for all of the second, or as many.
struct Pairs {
  std::string first_field, second_field;
  std::vector<std::string> first, second;
  int64_t most_of_second = INT64_MAX;  // tokens
};

double cosine(const Embedded& result, size_t a, size_t b) {
  double product = 0, left = 0, right = 0;
  for (size_t i = 0; i < result.width; ++i) {
    const double x = result.values[a * result.width + i], y = result.values[b * result.width + i];
    product += x * y, left += x * x, right += y * y;
  }
  return left > 0 && right > 0 ? product / std::sqrt(left * right) : 0;
}

// The body comes of the pairs' scores and the number of tokens.
void score_pairs(Call& call, const std::shared_ptr<ServedModel>& model, const Json& body, const Pairs& pairs,
                 std::function<Json(const std::vector<double>&, int64_t)> write) {
  const TextReader reader(*model, cut_of(body, *model));
  const bool cross = model->embedder->scores_pairs(), sigmoid = model->loaded.embedding.sigmoid;
  const size_t count = pairs.second.size(), firsts = pairs.first.size();
  const auto name = [](const std::string& field, size_t index, size_t of) { return of == 1 ? field : fmt::format("{}[{}]", field, index); };
  std::vector<EmbedText> texts;
  for (size_t i = 0; i < firsts && !cross; ++i) texts.push_back(reader.text(name(pairs.first_field, i, firsts), pairs.first[i]));
  for (size_t i = 0; i < count; ++i) {
    const std::string field = name(pairs.second_field, i, count);
    if (cross)
      texts.push_back(reader.pair(field, pairs.first[firsts == 1 ? 0 : i], pairs.second[i], pairs.most_of_second));
    else
      texts.push_back(reader.text(field, pairs.second[i]));
  }
  const int64_t tokens = tokens_in(texts);
  answer_with(call, model, std::move(texts), [=, write = std::move(write)](const Embedded& result) {
    std::vector<double> scores;
    for (size_t i = 0; i < count; ++i) {
      const double score = cross ? static_cast<double>(result.values[i]) : cosine(result, firsts == 1 ? 0 : i, firsts + i);
      scores.push_back(cross && sigmoid ? 1 / (1 + std::exp(-score)) : score);
    }
    return dump(write(scores, tokens));
  });
}

void rerank(Call& call) {
  const Json body = call.body();
  const std::shared_ptr<ServedModel> model = call.service.model_of(body);
  log_unknown(body, {"model", "query", "documents", "top_n", "return_documents", "max_tokens_per_doc", "truncate_prompt_tokens", "user"});
  const Json* const documents = given(body, "documents");
  if (documents && !documents->is_array()) throw ApiError(400, "documents must be a list", "documents");
  if (!given(body, "query")) throw ApiError(400, "query is missing", "query");
  Pairs pairs{"query", "documents", {text_of("query", body["query"])}, texts_of("documents", documents)};
  const bool with_documents = flag(body, "return_documents", true);
  const auto top = static_cast<size_t>(integer_or(body, "top_n", std::ssize(pairs.second), 1, INT32_MAX));
  if (given(body, "max_tokens_per_doc")) {
    if (!model->embedder->scores_pairs())
      throw ApiError(400, "max_tokens_per_doc needs a cross-encoder; truncate_prompt_tokens cuts texts of this model", "max_tokens_per_doc");
    pairs.most_of_second = integer_or(body, "max_tokens_per_doc", 0, 1, INT32_MAX);
  }
  score_pairs(call, model, body, pairs, [=, name = model->name, texts = pairs.second](const std::vector<double>& scores, int64_t tokens) {
    std::vector<size_t> order(scores.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::ranges::stable_sort(order, [&](size_t a, size_t b) { return scores[a] > scores[b]; });
    order.resize(std::min(order.size(), top));
    Json results = Json::array();
    for (const size_t index : order) {
      Json one = {{"index", index}, {"relevance_score", scores[index]}};
      if (with_documents) one["document"] = {{"text", texts[index]}};
      results.push_back(std::move(one));
    }
    return Json{{"id", "rerank-" + new_id()}, {"model", name}, {"results", results}, {"usage", {{"prompt_tokens", tokens}, {"total_tokens", tokens}}}};
  });
}

void score(Call& call) {
  const Json body = call.body();
  const std::shared_ptr<ServedModel> model = call.service.model_of(body);
  log_unknown(body, {"model", "text_1", "text_2", "truncate_prompt_tokens", "encoding_format", "user"});
  const Pairs pairs{"text_1", "text_2", texts_of("text_1", given(body, "text_1")), texts_of("text_2", given(body, "text_2"))};
  if (pairs.first.size() != 1 && pairs.first.size() != pairs.second.size()) {
    throw ApiError(400, fmt::format("text_1 has {} entries, text_2 has {}: text_1 must have one, or as many", pairs.first.size(), pairs.second.size()),
                   "text_1");
  }
  score_pairs(call, model, body, pairs,
              [name = model->name, now = call.service.options().clock->unix_time()](const std::vector<double>& scores, int64_t tokens) {
                Json data = Json::array();
                for (size_t i = 0; i < scores.size(); ++i) data.push_back({{"index", i}, {"object", "score"}, {"score", scores[i]}});
                return Json{{"id", "score-" + new_id()},
                            {"object", "list"},
                            {"created", now},
                            {"model", name},
                            {"data", data},
                            {"usage", {{"prompt_tokens", tokens}, {"total_tokens", tokens}}}};
              });
}

}  // namespace

std::vector<Route> embedding_routes() {
  return {{"POST", "/v1/embeddings", embeddings, true},
          {"POST", "/embeddings", embeddings, true},
          {"POST", "/api/embed", [](Call& call) { ollama_embed(call, false); }, true},
          {"POST", "/api/embeddings", [](Call& call) { ollama_embed(call, true); }, true},
          {"POST", "/v1/rerank", rerank, true},
          {"POST", "/rerank", rerank, true},
          {"POST", "/v2/rerank", rerank, true},
          {"POST", "/score", score, true},
          {"POST", "/v1/score", score, true}};
}

}  // namespace frugal::serve
