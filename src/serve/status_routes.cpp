// What the server says of itself: health, models, metrics, limits.
#include "engine/sampler.h"
#include "serve/fields.h"
#include "serve/service.h"

namespace frugal::serve {
namespace {

// The truth: a step that began long ago and has not ended is a hang, whatever the process does.
void health(Call& call) {
  const auto hang = call.service.hang();
  if (!hang) return send_json(*call.response, {{"status", "ok"}});
  throw ApiError(503, fmt::format("{}: the last step began {:.0f} s ago", hang->model, hang->seconds));
}

void ready(Call& call) {
  if (call.service.draining()) throw ApiError(503, "the server is shutting down");
  health(call);
}

Json card(const ModelCatalog::Listing& listing) {
  Json card = {{"id", listing.name},
               {"object", "model"},
               {"created", listing.created},
               {"owned_by", "frugal"},
               {"root", listing.path},
               {"parent", nullptr},
               {"status", listing.model     ? "loaded"
                          : listing.loading ? "loading"
                                            : "unloaded"},
               {"max_model_len", nullptr},
               {"permission", Json::array()},
               {"meta", nullptr}};
  if (!listing.model) return card;
  const ServedModel& model = *listing.model;
  card["max_model_len"] = model.context();
  card["meta"] = {{"vocab_type", 0},         {"n_vocab", model.vocabulary()},  {"n_ctx_train", model.trained_context()},
                  {"n_embd", model.width()}, {"n_params", model.parameters()}, {"size", listing.file_bytes}};
  return card;
}

void models(Call& call) {
  Json cards = Json::array();
  for (const auto& listing : call.service.catalog().list()) cards.push_back(card(listing));
  send_json(*call.response, {{"object", "list"}, {"data", cards}});
}

void model(Call& call) {
  const std::string name = call.service.catalog().resolve(call.request.path.substr(std::string_view("/v1/models/").size()));
  for (const auto& listing : call.service.catalog().list()) {
    if (listing.name == name) return send_json(*call.response, card(listing));
  }
}

// llama.cpp's: into memory, and out of it.
void load(Call& call) {
  const std::shared_ptr<ServedModel> model = call.service.model_of(call.body());
  send_json(*call.response, {{"success", true}});
}

void unload(Call& call) {
  const Json body = call.body();
  const Json name = body.value("model", Json(nullptr));
  if (!name.is_string()) throw ApiError(400, "model must be a string", "model");
  call.service.catalog().unload(call.service.catalog().resolve(name.get<std::string>()));
  send_json(*call.response, {{"success", true}});
}

void version(Call& call) { send_json(*call.response, {{"version", call.service.options().version}}); }

// What counts where a request says nothing, and the table of what it may say.
void props(Call& call) {
  const std::shared_ptr<ServedModel> model = call.service.model("");
  Json defaults = Json::object();
  for (const OptionSpec& option : engine::sampling_options()) defaults[option.name] = option.fallback;
  for (const auto& [name, value] : model->sampling) defaults[name] = value;
  // By the names that requests have, for each model in memory.
  Json by_model = Json::object();
  for (const auto& listing : call.service.catalog().list()) {
    if (!listing.model) continue;
    Json& own = by_model[listing.name] = Json::object();
    const Options sampling("sampling", engine::sampling_options(), listing.model->sampling);
    for (const Field& field : request_fields()) {
      if (field.use != FieldUse::sampling) continue;
      if (field.type == FieldType::integer)
        own[field.name] = sampling.integer(field.option);
      else
        own[field.name] = sampling.number(field.option);
    }
  }
  Json fields = Json::array();
  for (const Field& field : request_fields()) {
    if (field.use != FieldUse::sampling && field.use != FieldUse::read) continue;
    Json row = {{"name", field.name}, {"help", field.help}};
    if (field.type == FieldType::integer || field.type == FieldType::number)
      row["min"] = field.min, row["max"] = field.max, row["integer"] = field.type == FieldType::integer;
    fields.push_back(std::move(row));
  }
  send_json(*call.response, {{"default_generation_settings", {{"n_ctx", model->context()}, {"params", defaults}}},
                             {"default_sampling", by_model},
                             {"total_slots", nullptr},
                             {"model_path", model->loaded.name},
                             {"tool_call_format", model->tool_format ? Json(model->tool_format->name) : Json(nullptr)},
                             {"fields", fields}});
}

// A text between the quotes of a label, as Prometheus reads it.
std::string label_value(const std::string& text) {
  std::string value;
  for (const char c : printable(text)) {
    if (c == '"' || c == '\\') value += '\\';
    value += c;
  }
  return value;
}

void metrics(Call& call) {
  const std::string prefix = call.service.options().metrics_prefix + ":";
  std::string out;
  const auto labels = [](const std::string& model) { return fmt::format("model_name=\"{}\",engine=\"0\"", label_value(model)); };
  std::vector<ModelCatalog::Listing> listings = call.service.catalog().list();
  const std::string first = labels(listings.front().name);
  std::erase_if(listings, [](const ModelCatalog::Listing& listing) { return !listing.model; });
  const auto rows = [&](const std::string& name, const char* type, const auto& value) {
    out += fmt::format("# TYPE {}{} {}\n", prefix, name, type);
    for (const auto& listing : listings) out += fmt::format("{}{}{{{}}} {}\n", prefix, name, labels(listing.name), value(listing.model->counts()));
  };
  using engine::EngineCounts;
  rows("num_requests_running", "gauge", [](const EngineCounts& c) { return c.scheduler.running; });
  rows("num_requests_waiting", "gauge", [](const EngineCounts& c) { return c.scheduler.waiting; });
  rows("kv_cache_usage_perc", "gauge", [](const EngineCounts& c) {
    return c.scheduler.blocks ? static_cast<double>(c.scheduler.blocks_in_use) / static_cast<double>(c.scheduler.blocks) : 0.0;
  });
  rows("prompt_tokens_total", "counter", [](const EngineCounts& c) { return c.prompt_tokens; });
  rows("generation_tokens_total", "counter", [](const EngineCounts& c) { return c.generated_tokens; });
  rows("num_preemptions_total", "counter", [](const EngineCounts& c) { return c.scheduler.preemptions; });
  rows("prefix_cache_queries_total", "counter", [](const EngineCounts& c) { return c.scheduler.prefix_queries; });
  rows("prefix_cache_hits_total", "counter", [](const EngineCounts& c) { return c.scheduler.prefix_hits; });
  out += fmt::format("# TYPE {}request_success_total counter\n", prefix);
  for (const auto& listing : listings) {
    const EngineCounts c = listing.model->counts();
    for (const auto& [reason, count] : {std::pair{"stop", c.ended_stop}, {"length", c.ended_length}, {"abort", c.ended_cancelled}, {"error", c.ended_error}}) {
      out += fmt::format("{}request_success_total{{{},finished_reason=\"{}\"}} {}\n", prefix, labels(listing.name), reason, count);
    }
  }

  call.service.time_to_first_token.write(out, prefix + "time_to_first_token_seconds", first);
  call.service.inter_token.write(out, prefix + "request_time_per_output_token_seconds", first);
  call.service.whole_request.write(out, prefix + "e2e_request_latency_seconds", first);
  call.service.queue_time.write(out, prefix + "request_queue_time_seconds", first);
  call.response->send(200, {{"Content-Type", "text/plain; version=0.0.4; charset=utf-8"}}, out);
}

}  // namespace

std::vector<Route> status_routes() {
  return {{"GET", "/health", health},    {"GET", "/ready", ready},       {"GET", "/ping", health},          {"GET", "/version", version},
          {"GET", "/v1/models", models}, {"GET", "/models", models},     {"GET", "/v1/models/*", model},    {"GET", "/props", props},
          {"GET", "/metrics", metrics},  {"POST", "/models/load", load}, {"POST", "/models/unload", unload}};
}

}  // namespace frugal::serve
