// The models that a server knows, and which of them are in memory: loaded when they are asked for, given up when another needs the room.
// Everything is thread-safe.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/options.h"
#include "engine/embedder.h"
#include "nn/loader.h"
#include "text/grammar/matcher.h"
#include "text/tool_format.h"

namespace frugal::serve {

// One model on the air.
struct ServedModel {
  std::string name;
  nn::LoadedModel loaded;
  std::unique_ptr<engine::Engine> engine;  // null for an encoder
  std::unique_ptr<engine::Embedder> embedder;
  uint64_t memory_bytes = 0;  // weights, and what keys and values may take
  int64_t created = 0;
  RawOptions sampling;                            // what the checkpoint asks for where a request says nothing
  const text::ToolFormat* tool_format = nullptr;  // null: no template, so no conversations
  text::ReasoningMarks reasoning;
  std::vector<int32_t> marks;  // control tokens that mark calls and reasoning: they are text then

  // With all that follows from the checkpoint. Throws Error.
  static std::shared_ptr<ServedModel> make(nn::LoadedModel loaded, const engine::EngineOptions& options);
  void set_tool_format(const text::ToolFormat& format);  // instead of the template's, before it is served

  // What a decoder and an encoder both have.
  const std::string& family() const;
  int64_t vocabulary() const, context() const, trained_context() const, width() const;
  uint64_t parameters() const;
  engine::EngineCounts counts() const;  // of generation and embedding
  void require_generation() const;      // throws ApiError{400} for an encoder
  void stop();                          // cancels what runs, and is not used again

  // For a grammar, compiled if it is not known by this key. `with_marks`: their tokens may be drawn.
  std::shared_ptr<const text::GrammarMatcher> matcher(const std::string& key, bool with_marks,
                                                      const std::function<std::shared_ptr<const text::Grammar>()>& compile);

 private:
  std::mutex mutex_;
  std::shared_ptr<const text::TokenBytes> token_bytes_, token_bytes_with_marks_;
  std::map<std::string, std::shared_ptr<const text::GrammarMatcher>> matchers_;
};

// A model by name, whether it is in memory or not.
struct ModelSource {
  std::string name, path;
  uint64_t file_bytes = 0;
  // Loads it into at most so many bytes. Throws Error.
  std::function<std::shared_ptr<ServedModel>(uint64_t available)> load;
};

class ModelCatalog {
 public:
  struct Listing {
    std::string name, path;
    uint64_t file_bytes = 0;
    int64_t created = 0;
    bool loading = false;
    std::shared_ptr<ServedModel> model;  // null: not in memory
  };
  using Loaded = std::function<void(std::shared_ptr<ServedModel>, std::exception_ptr)>;

  explicit ModelCatalog(const Clock& clock) : clock_(clock) {}
  ~ModelCatalog();  // whoever uses models has ended

  void set_memory_limit(uint64_t bytes) { limit_ = bytes; }
  // Throws Error{invalid_input} for a name that is there already.
  void add(ModelSource source);
  std::vector<Listing> list() const;
  // The name of the first one where `name` is empty. Throws ApiError{404}.
  std::string resolve(const std::string& name) const;
  // What is in memory under a name of resolve(), and it counts as used; null: load() it first.
  std::shared_ptr<ServedModel> find(const std::string& name);
  // Later, on the thread that loads: the model, or why it cannot be had. Idle models make room, the one longest unused first; while all are
  // at work it waits half a minute.
  void load(const std::string& name, Loaded then);
  // Out of memory again. Throws ApiError{503} while it is at work.
  void unload(const std::string& name);

 private:
  struct Entry {
    ModelSource source;
    int64_t created = 0;
    std::shared_ptr<ServedModel> model;
    uint64_t used = 0;  // rises with each use
    std::vector<Loaded> waiting;
  };
  void run();
  std::shared_ptr<ServedModel> load_now(const Entry& entry);
  uint64_t room_for(const Entry& entry);  // makes it; what there is then
  Entry& entry(const std::string& name);

  const Clock& clock_;
  uint64_t limit_ = ~uint64_t{0}, uses_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::unique_ptr<Entry>> entries_;
  std::deque<Entry*> to_load_;
  bool ending_ = false;
  std::thread thread_;  // begins with the first load
};

}  // namespace frugal::serve
