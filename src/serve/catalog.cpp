#include "serve/catalog.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/log.h"
#include "engine/model_sampling.h"
#include "serve/api.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace frugal::serve {
namespace {

constexpr size_t kKeptMatchers = 64;
constexpr std::chrono::milliseconds kWaitForIdle{30'000}, kLookAgain{50};

}  // namespace

std::shared_ptr<ServedModel> ServedModel::make(nn::LoadedModel loaded, const engine::EngineOptions& options) {
  auto model = std::make_shared<ServedModel>();
  if (loaded.model) model->sampling = engine::sampling_defaults(loaded);
  model->loaded = std::move(loaded);
  model->memory_bytes = model->loaded.file_bytes + (model->loaded.model ? options.cache_bytes : 0);
  if (model->loaded.model && model->loaded.chat_template) {
    model->reasoning = text::reasoning_marks(*model->loaded.chat_template);
    model->set_tool_format(text::tool_format(*model->loaded.chat_template));
  }
  if (model->loaded.model) {
    model->engine = std::make_unique<engine::Engine>(model->loaded, options);
    model->loaded.embedding.max_tokens = model->engine->context();
  }
  model->embedder = std::make_unique<engine::Embedder>(model->loaded, *options.clock);
  return model;
}

const std::string& ServedModel::family() const { return loaded.encoder ? loaded.encoder->spec.family : loaded.model->spec.family; }
int64_t ServedModel::vocabulary() const { return loaded.encoder ? loaded.encoder->spec.vocab : loaded.model->spec.vocab; }
int64_t ServedModel::context() const { return engine ? engine->context() : embedder->max_tokens(); }
int64_t ServedModel::trained_context() const { return loaded.encoder ? loaded.encoder->spec.positions : loaded.model->spec.context_length; }
int64_t ServedModel::width() const { return loaded.encoder ? loaded.encoder->spec.hidden : loaded.model->spec.hidden; }
uint64_t ServedModel::parameters() const { return loaded.encoder ? loaded.encoder->parameters() : loaded.model->original_parameters; }

engine::EngineCounts ServedModel::counts() const {
  engine::EngineCounts counts = engine ? engine->counts() : engine::EngineCounts();
  const engine::EngineCounts embedded = embedder->counts();
  for (int64_t engine::EngineCounts::*const sum : {&engine::EngineCounts::steps, &engine::EngineCounts::prompt_tokens, &engine::EngineCounts::ended_stop,
                                                   &engine::EngineCounts::ended_cancelled, &engine::EngineCounts::ended_error}) {
    counts.*sum += embedded.*sum;
  }
  counts.scheduler.running += embedded.scheduler.running;
  return counts;
}

void ServedModel::require_generation() const {
  if (engine) return;
  throw ApiError(400, fmt::format("{}: this model {}; it cannot generate", name, embedder->scores_pairs() ? "scores pairs of texts" : "makes embeddings"),
                 "model");
}

void ServedModel::stop() {
  if (engine) engine->stop();
  embedder->stop();
}

void ServedModel::set_tool_format(const text::ToolFormat& format) {
  tool_format = &format;
  marks.clear();
  for (const std::string_view mark : {format.open, format.close, format.separator, reasoning.open, reasoning.close}) {
    const std::optional<int32_t> id = mark.empty() ? std::nullopt : loaded.tokenizer->find(mark);
    if (id && loaded.tokenizer->is_special(*id)) marks.push_back(*id);
  }
}

std::shared_ptr<const text::GrammarMatcher> ServedModel::matcher(const std::string& key, bool with_marks,
                                                                 const std::function<std::shared_ptr<const text::Grammar>()>& compile) {
  with_marks &= !marks.empty();
  std::shared_ptr<const text::TokenBytes> token_bytes;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = matchers_.find(key); found != matchers_.end()) return found->second;
    std::shared_ptr<const text::TokenBytes>& kept = with_marks ? token_bytes_with_marks_ : token_bytes_;
    if (!kept) kept = std::make_shared<const text::TokenBytes>(*loaded.tokenizer, with_marks ? std::span<const int32_t>(marks) : std::span<const int32_t>());
    token_bytes = kept;
  }
  // Up to a second of work: others are not kept waiting.
  auto made = std::make_shared<const text::GrammarMatcher>(compile(), token_bytes);
  const std::lock_guard lock(mutex_);
  if (matchers_.size() >= kKeptMatchers) matchers_.erase(matchers_.begin());
  return matchers_.emplace(key, std::move(made)).first->second;
}

ModelCatalog::~ModelCatalog() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
  // Answers that are still on their way hold their model, and the model's engine holds them.
  for (const auto& entry : entries_) {
    if (entry->model) entry->model->stop();
  }
}

void ModelCatalog::add(ModelSource source) {
  const std::lock_guard lock(mutex_);
  for (const auto& other : entries_) {
    if (other->source.name == source.name)
      fail(ErrorKind::invalid_input, "two models are called \"{}\": name them, as in a=path1 b=path2", printable(source.name));
  }
  entries_.push_back(std::make_unique<Entry>());
  entries_.back()->source = std::move(source);
  entries_.back()->created = clock_.unix_time();
}

std::vector<ModelCatalog::Listing> ModelCatalog::list() const {
  const std::lock_guard lock(mutex_);
  std::vector<Listing> all;
  for (const auto& entry : entries_)
    all.push_back({entry->source.name, entry->source.path, entry->source.file_bytes, entry->created, !entry->waiting.empty(), entry->model});
  return all;
}

std::string ModelCatalog::resolve(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  if (name.empty()) return entries_.front()->source.name;
  std::string names;
  for (const auto& entry : entries_) {
    if (entry->source.name == name) return name;
    names += (names.empty() ? "" : ", ") + entry->source.name;
  }
  throw ApiError(404, fmt::format("there is no model \"{}\" here; there is {}", printable(name), names), "model", "model_not_found");
}

ModelCatalog::Entry& ModelCatalog::entry(const std::string& name) {
  return **std::ranges::find_if(entries_, [&](const auto& entry) { return entry->source.name == name; });
}

std::shared_ptr<ServedModel> ModelCatalog::find(const std::string& name) {
  const std::lock_guard lock(mutex_);
  Entry& found = entry(name);
  found.used = ++uses_;
  return found.model;
}

void ModelCatalog::load(const std::string& name, Loaded then) {
  const std::lock_guard lock(mutex_);
  Entry& wanted = entry(name);
  if (wanted.waiting.empty()) to_load_.push_back(&wanted);
  wanted.waiting.push_back(std::move(then));
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  wake_.notify_all();
}

void ModelCatalog::unload(const std::string& name) {
  // Whoever has just sent an answer holds the model a moment longer.
  constexpr int kLooks = 50;
  constexpr std::chrono::milliseconds kPause{10};
  for (int look = 0; look < kLooks; ++look) {
    if (look > 0) std::this_thread::sleep_for(kPause);
    std::shared_ptr<ServedModel> gone;  // ends outside the lock
    const std::lock_guard lock(mutex_);
    Entry& found = entry(name);
    if (found.model.use_count() > 1) continue;
    gone = std::exchange(found.model, nullptr);
    return;
  }
  throw ApiError(503, "the model is at work", "model");
}

void ModelCatalog::run() {
  for (;;) {
    Entry* wanted = nullptr;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return ending_ || !to_load_.empty(); });
      if (ending_) return;
      wanted = to_load_.front();
      to_load_.pop_front();
    }
    std::shared_ptr<ServedModel> model;
    std::exception_ptr error;
    try {
      model = load_now(*wanted);
    } catch (...) {
      error = std::current_exception();
    }
    std::vector<Loaded> waiting;
    {
      const std::lock_guard lock(mutex_);
      wanted->model = model;
      wanted->used = ++uses_;
      waiting.swap(wanted->waiting);
    }
    for (const Loaded& then : waiting) then(model, error);
  }
}

std::shared_ptr<ServedModel> ModelCatalog::load_now(const Entry& entry) {
  {
    const std::lock_guard lock(mutex_);
    if (entry.model) return entry.model;  // since it was asked for
  }
  std::shared_ptr<ServedModel> model = entry.source.load(room_for(entry));
  model->name = entry.source.name;
  model->created = entry.created;
  return model;
}

uint64_t ModelCatalog::room_for(const Entry& entry) {
  const uint64_t wanted = entry.source.file_bytes;
  if (wanted > limit_) {
    throw ApiError(503, fmt::format("{} takes {:.0f} MB, and the server may take {:.0f} MB (--memory-limit-mib)", entry.source.name,
                                    static_cast<double>(wanted) / 1e6, static_cast<double>(limit_) / 1e6));
  }
  std::vector<std::shared_ptr<ServedModel>> gone;  // they end before the new one is read
  const auto until = std::chrono::steady_clock::now() + kWaitForIdle;
  std::unique_lock lock(mutex_);
  for (;;) {
    uint64_t taken = 0;
    Entry* idle = nullptr;
    for (const auto& other : entries_) {
      if (!other->model) continue;
      taken += other->model->memory_bytes;
      if (other->model.use_count() == 1 && (!idle || other->used < idle->used)) idle = other.get();
    }
    if (taken <= limit_ && limit_ - taken >= wanted + wanted / 8) {  // an eighth for keys and values, at least
      lock.unlock();
      gone.clear();
      return limit_ - taken;
    }
    if (idle) {
      log_info("{} leaves the memory for {}", idle->source.name, entry.source.name);
      gone.push_back(std::exchange(idle->model, nullptr));
    } else if (taken == 0) {
      return limit_;
    } else if (ending_ || std::chrono::steady_clock::now() >= until) {
      throw ApiError(503, fmt::format("there is no room for {} beside the models that are at work", entry.source.name), {}, "overloaded");
    } else {
      wake_.wait_for(lock, kLookAgain);
    }
  }
}

}  // namespace frugal::serve
