// frugal serve: models behind HTTP.
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <optional>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/process.h"
#include "base/progress.h"
#include "cli/context.h"
#include "cli/generation.h"
#include "cli/resources.h"
#include "cli/served_ledger.h"
#include "cli/terminal.h"
#include "io/checkpoint.h"
#include "serve/http/http.h"
#include "serve/service.h"

namespace frugal::cli {
namespace {

constexpr double kDrainSeconds = 30, kStatusSeconds = 10;
constexpr std::chrono::seconds kEnd{15};  // of models and threads, which takes some hundredths of one

struct ServeValues {
  std::vector<std::string> models, keys, hosts;
  std::string host = "127.0.0.1", key_file, alias, ledger, metrics_prefix = "frugal", tool_call_parser, pooling;
  int64_t port = 8080, context = 0, parallel = 256, batch = 512, cache_mib = 0, memory_mib = 0, ping_seconds = 30, hang_seconds = 300, per_key = 0,
          waiting = 256;
  CacheValues cache;
  AdapterValues adapters;
  TemplateValues chat_template;
  bool anonymous = false, no_prefix = false;
};

std::atomic<int> signals{0};
void on_signal(int) {
  if (++signals > 1) ::_exit(130);
}

// A step of the engine must not be interrupted as other work is: the first signal ends what takes requests, the second all.
void take_signals() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

// Each connection is a descriptor; the soft limit is often 1,024.
void raise_descriptor_limit() {
  rlimit limit = {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// What Linux would give without swapping; where it does not say, 4 GiB.
uint64_t available_memory() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  for (uint64_t kib = 0; file >> name >> kib; std::getline(file, unit)) {
    if (name == "MemAvailable:") return kib << 10;
  }
  return uint64_t{4} << 30;
}

std::vector<std::string> keys_of(const ServeValues& values) {
  std::vector<std::string> keys;
  const auto add = [&](const std::string& text) {
    for (size_t begin = 0; begin <= text.size();) {
      const size_t end = std::min(text.find_first_of(",\n\r", begin), text.size());
      if (end > begin) keys.push_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
  };
  for (const std::string& key : values.keys) add(key);
  if (!values.key_file.empty()) add(read_text_file(values.key_file, 1 << 20));
  const char* const from_environment = std::getenv("FRUGAL_API_KEY");
  if (from_environment && keys.empty()) add(from_environment);
  if (keys.empty() && (!values.keys.empty() || !values.key_file.empty() || from_environment))
    fail(ErrorKind::invalid_input, "the API key that was given is empty");
  return keys;
}

std::optional<serve::HttpAnswer> authorize(const serve::HttpRequest& request, const std::vector<std::string>& keys) {
  if (keys.empty() || request.path == "/health" || (request.path == "/" && request.method != "POST")) return std::nullopt;
  std::string given;
  int count = 0;
  for (const auto& [name, value] : request.headers) {
    if (name == "authorization" && value.starts_with("Bearer ")) given = value.substr(7), ++count;
    if (name == "x-api-key") given = value, ++count;
  }
  bool right = false;
  for (const std::string& key : keys) right |= serve::equal_in_constant_time(key, given);
  if (right && count == 1) return std::nullopt;
  serve::HttpAnswer answer = serve::error_answer(401, "Invalid API Key", {}, "invalid_api_key");
  answer.headers.emplace_back("WWW-Authenticate", "Bearer");
  return answer;
}

// Memory for keys and values: what was asked for; else what sixteen whole contexts take, but at most a quarter of what is free, shared by the
// models, and what the limit leaves.
uint64_t cache_bytes(const ServeValues& values, const nn::LoadedModel& loaded, int64_t context, nn::CacheType type, uint64_t available) {
  const uint64_t free = available_memory(), rest = available - std::min(available, loaded.file_bytes);
  const nn::KvCache empty(loaded.model->spec, type, 0);
  const auto one = static_cast<uint64_t>(nn::KvCache::blocks_for(context) * empty.block_bytes());
  const uint64_t wanted = values.cache_mib > 0 ? static_cast<uint64_t>(values.cache_mib) << 20 : std::min(16 * one, free / (4 * values.models.size()));
  const uint64_t bytes = std::min(wanted, rest);
  print_note(fmt::format("{}: weights {:.0f} MB; keys and values up to {:.0f} MB ({}): {} tokens, a context of {} takes {:.0f} MB; {:.1f} GB are free",
                         loaded.name, static_cast<double>(loaded.file_bytes) / 1e6, static_cast<double>(bytes) / 1e6,
                         bytes < wanted         ? "what --memory-limit-mib leaves"
                         : values.cache_mib > 0 ? "--kv-cache-mib"
                         : bytes == 16 * one    ? "sixteen contexts"
                                                : "a quarter of what is free, shared by the models",
                         static_cast<int64_t>(bytes / static_cast<uint64_t>(std::max<int64_t>(1, empty.block_bytes()))) * nn::kPageSize, context,
                         static_cast<double>(one) / 1e6, static_cast<double>(free) / 1e9));
  return bytes;
}

nn::Pooling pooling_named(const std::string& name) {
  for (const nn::Pooling pooling : {nn::Pooling::mean, nn::Pooling::cls, nn::Pooling::last}) {
    if (nn::to_string(pooling) == name) return pooling;
  }
  fail(ErrorKind::invalid_input, "--pooling must be mean, cls or last, is \"{}\"", printable(name));
}

std::shared_ptr<serve::ServedModel> load_served(const Context& context, const ServeValues& values, const std::string& path, uint64_t available) {
  nn::LoadedModel loaded = context.loader.load_any(path, nn::Execution::packed);
  if (!loaded.tokenizer) fail(ErrorKind::invalid_input, "{}: the checkpoint has no tokenizer", loaded.name);
  attach_adapters(values.adapters, loaded, nn::Execution::packed);
  replace_template(values.chat_template, loaded);
  engine::EngineOptions options;
  if (!values.pooling.empty()) loaded.embedding.pooling = pooling_named(values.pooling);
  if (loaded.encoder) {
    print_note(fmt::format("{}: an encoder that makes {} of texts of up to {} tokens", loaded.name,
                           loaded.encoder->spec.scores_pairs ? "scores of pairs" : "embeddings", loaded.embedding.max_tokens));
    return serve::ServedModel::make(std::move(loaded), options);
  }
  options.cache = cache_type(values.cache, false);
  options.context = values.context > 0 ? values.context : loaded.model->spec.context_length;
  if (options.context > loaded.model->spec.context_length) {
    log_warning("a context of {} tokens is more than the {} that {} was trained with", options.context, loaded.model->spec.context_length, loaded.name);
  }
  options.cache_bytes = cache_bytes(values, loaded, options.context, options.cache, available);
  options.most_waiting = static_cast<size_t>(values.waiting);
  options.scheduler.most_running = values.parallel;
  options.scheduler.step_tokens = std::max(values.batch, values.parallel + 1);
  options.scheduler.share_beginnings = !values.no_prefix;
  std::shared_ptr<serve::ServedModel> model = serve::ServedModel::make(std::move(loaded), options);
  if (!values.tool_call_parser.empty() && model->tool_format) model->set_tool_format(text::tool_format(values.tool_call_parser));
  return model;
}

// Files are found, and fetched from the hub, before the server listens; each is opened once to see that it is a checkpoint.
void add_model(serve::Service& service, const Context& context, const ServeValues& values, const std::string& path, const std::string& name) {
  serve::ModelSource source;
  const std::shared_ptr<const io::Checkpoint> checkpoint = io::open_checkpoint(path);
  source.path = path;
  source.name = name.empty() ? checkpoint->name() : name;
  source.file_bytes = checkpoint->weight_bytes;
  source.load = [&context, &values, path](uint64_t available) { return load_served(context, values, path, available); };
  service.catalog().add(std::move(source));
}

void add_named_model(serve::Service& service, const Context& context, const ServeValues& values, const std::string& spec) {
  const size_t equals = spec.find('=');
  const bool named = equals != std::string::npos;
  add_model(service, context, values, resolve_model_path(context, named ? spec.substr(equals + 1) : spec), named ? spec.substr(0, equals) : values.alias);
}

// What lies beside the ledger is served as well, unless it is already, or another has its name.
void add_ledger(serve::Service& service, const Context& context, const ServeValues& values) {
  for (const std::string& path : paths_beside(values.ledger)) {
    const std::string name = std::filesystem::path(path).filename().string();
    const auto listings = service.catalog().list();
    const auto same = [&](const serve::ModelCatalog::Listing& one) { return one.name == name || std::filesystem::equivalent(one.path, path); };
    if (std::ranges::any_of(listings, same)) continue;
    try {
      add_model(service, context, values, path, name);
    } catch (const Error& error) {
      log_info("{} is not served: {}", path, error.what());
    }
  }
  service.set_ledger(served_ledger(values.ledger, service));
}

// Waits for it: what is wrong with the first model is known before the server listens.
void load_first(serve::Service& service) {
  std::promise<void> loaded;
  service.catalog().load(service.catalog().resolve(""), [&](const std::shared_ptr<serve::ServedModel>&, const std::exception_ptr& error) {
    if (error)
      loaded.set_exception(error);
    else
      loaded.set_value();
  });
  loaded.get_future().get();
}

// One line every ten seconds in which something happened, as vLLM's.
class StatusLine {
 public:
  void print(serve::Service& service, double seconds) {
    engine::EngineCounts now;
    for (const auto& listing : service.catalog().list()) {
      if (!listing.model) continue;
      const engine::EngineCounts counts = listing.model->counts();
      now.steps += counts.steps;
      now.prompt_tokens += counts.prompt_tokens;
      now.generated_tokens += counts.generated_tokens;
      now.scheduler.running += counts.scheduler.running;
      now.scheduler.waiting += counts.scheduler.waiting;
      now.scheduler.blocks += counts.scheduler.blocks;
      now.scheduler.blocks_in_use += counts.scheduler.blocks_in_use;
      now.scheduler.prefix_queries += counts.scheduler.prefix_queries;
      now.scheduler.prefix_hits += counts.scheduler.prefix_hits;
    }
    if (now.steps == last_.steps) return;
    const auto share = [](int64_t part, int64_t whole) { return whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0.0; };
    print_note(fmt::format(
        "Avg prompt throughput: {:.1f} tokens/s, Avg generation throughput: {:.1f} tokens/s, Running: {} reqs, Waiting: {} reqs, KV cache usage: {:.1f}%, "
        "Prefix cache hit rate: {:.1f}%",
        static_cast<double>(now.prompt_tokens - last_.prompt_tokens) / seconds, static_cast<double>(now.generated_tokens - last_.generated_tokens) / seconds,
        now.scheduler.running, now.scheduler.waiting, share(now.scheduler.blocks_in_use, now.scheduler.blocks),
        share(now.scheduler.prefix_hits, now.scheduler.prefix_queries)));
    last_ = now;
  }

 private:
  engine::EngineCounts last_;
};

// A step that hangs holds its thread and the models: nothing of it can be ended in order. Whoever watches over us starts us again.
[[noreturn]] void end_at_once(const std::string& why) {
  log_message(LogLevel::error, why + "; the stacks of all threads:");
  write_stacks(STDERR_FILENO);
  ::_exit(1);
}

void run(const Context& context, const ServeValues& values) {
  const std::vector<std::string> keys = keys_of(values);
  const bool local =
      values.host == "127.0.0.1" || values.host == "::1" || values.host == "[::1]" || values.host == "localhost" || values.host.ends_with(".sock");
  if (!local && keys.empty() && !values.anonymous) {
    fail(ErrorKind::invalid_input, "--host {} is reachable from other machines: give --api-key, or --allow-anonymous if everybody may use it", values.host);
  }
  if (!values.adapters.empty() && (values.models.size() > 1 || !values.ledger.empty())) fail(ErrorKind::invalid_input, "--lora is for a server of one model");
  serve::ServiceOptions options;
  options.metrics_prefix = values.metrics_prefix;
  options.version = kVersion;
  options.most_per_key = values.per_key;
  serve::Service service(options);
  service.catalog().set_memory_limit(values.memory_mib > 0 ? static_cast<uint64_t>(values.memory_mib) << 20 : available_memory() / 10 * 9);
  for (const std::string& model : values.models) add_named_model(service, context, values, model);
  load_first(service);
  if (!values.ledger.empty()) add_ledger(service, context, values);
  serve::HttpOptions http;
  http.host = values.host;
  http.port = static_cast<int>(values.port);
  http.allowed_hosts = values.hosts;
  http.any_type_paths = {"/api/"};  // Ollama's clients name none, or curl's own
  http.authorize = [keys](const serve::HttpRequest& request) { return authorize(request, keys); };
  http.shape_error = [](serve::HttpAnswer answer, std::string_view path) { return serve::shaped(std::move(answer), serve::shape_of(path)); };
  take_signals();
  stop_point();  // for a signal that came while models were loaded
  raise_descriptor_limit();
  serve::HttpServer server(
      http, [&](serve::HttpRequest&& request, std::shared_ptr<serve::HttpResponse> response) { service.handle(std::move(request), std::move(response)); });
  const std::string where = values.host.ends_with(".sock") ? values.host : fmt::format("http://{}:{}", values.host, server.port());
  if (context.json)
    print_json({{"listening", where}, {"port", server.port()}});
  else
    print(fmt::format("listening on {}\n", where));
  StatusLine status;
  for (int tick = 1; signals == 0; ++tick) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    service.watch();
    if (const auto hang = service.hang(); hang && values.hang_seconds > 0 && hang->seconds > static_cast<double>(values.hang_seconds)) {
      end_at_once(fmt::format("{}: a step has not ended for {:.0f} s (--hang-limit)", hang->model, hang->seconds));
    }
    if (tick % static_cast<int>(10 * kStatusSeconds) == 0) status.print(service, kStatusSeconds);
    if (tick % (5 * values.ping_seconds) == 0) service.ping_silent_streams();  // twice in the interval: no silence is longer than it
  }
  print_note("shutting down: answers that have begun may end, for 30 seconds (again: at once)");
  service.refuse_new_work();
  if (!server.drain(kDrainSeconds)) print_note("some answers were cut off");
  std::thread([] {
    std::this_thread::sleep_for(kEnd);
    end_at_once("a step does not end, and so the shutdown");
  }).detach();
}

}  // namespace

void add_serve(CLI::App& app, Context& context) {
  const auto values = std::make_shared<ServeValues>();
  Verb verb =
      new_verb(app, context, "serve", "Serve models over HTTP to clients of OpenAI, Anthropic and Ollama", [&context, values] { run(context, *values); });
  verb.texts("model,-m,--model", values->models, "Paths or hub names, each as NAME=PATH or alone")
      .required()
      .text("--host", values->host, "Address, name or Unix socket (*.sock)")
      .integer("--port", values->port, 0, 65535, "Port (0: any)")
      .texts("--api-key", values->keys, "Key that requests must bring; repeatable, or separated by commas (environment: FRUGAL_API_KEY)")
      .text("--api-key-file", values->key_file, "The same from a file, one a line")
      .integer("--max-requests-per-key", values->per_key, 0, int64_t{1} << 20,
               "Requests of one API key that generate or embed at once: one more gets 429 (0: any number); those without a key are one client")
      .flag("--allow-anonymous", values->anonymous, "Listen beyond this machine without a key")
      .texts("--allowed-host", values->hosts, "Name that a Host header may hold besides the local ones; repeatable")
      .text("--alias,--served-model-name", values->alias, "Name of the model for clients (-a)")
      .integer("-c,--ctx-size,--max-model-len", values->context, 0, int64_t{1} << 30, "Context in tokens (0: the model's)")
      .integer("--parallel,--max-num-seqs", values->parallel, 1, 4096, "Sequences that run at once, at most (-np)")
      .integer("--max-queued-requests", values->waiting, 1, 1 << 20, "Requests that wait for their turn, at most; one more is a 503")
      .integer("-b,--batch-size,--max-num-batched-tokens", values->batch, 1, int64_t{1} << 20, "Tokens of one step, at most")
      .integer("--kv-cache-mib", values->cache_mib, 0, int64_t{1} << 30, "Memory for keys and values (0: chosen by what is free)")
      .integer("--memory-limit-mib", values->memory_mib, 0, int64_t{1} << 30,
               "Memory for all models with their keys and values (0: nine tenths of what is free); models are loaded when they are asked for")
      .text("--tool-call-parser", values->tool_call_parser, "How the model writes calls of tools, instead of what its template shows")
      .flag("--no-prefix-caching", values->no_prefix, "Requests that begin alike share nothing")
      .integer("--sse-ping-interval", values->ping_seconds, 1, 86'400, "Seconds after which a silent stream of events gets a comment")
      .integer("--hang-limit", values->hang_seconds, 0, 86'400,
               "Seconds after which a step that does not end ends the server, with the stacks of its threads (0: never)")
      .text("--pooling", values->pooling,
            "How tokens become an embedding: mean, cls, last (else as the checkpoint says, or last for a decoder, mean for an encoder)")
      .text("--ledger", values->ledger, "Ledger that the web page draws, as sweep, compress and eval write it; checkpoints in models/ beside it are served too")
      .text("--metrics-prefix", values->metrics_prefix, "First part of the metrics' names (vllm: as its dashboards expect)");
  add_adapter_options(verb, values->adapters);
  add_cache_options(verb, values->cache);
  add_template_options(verb, values->chat_template);
}

}  // namespace frugal::cli
