// Vectors of texts, or scores of pairs, from an encoder or a decoder: a thread that computes what was asked for in chunks of a few hundred
// tokens, in each a text of every request that waits, so that a long list holds up neither a short one nor the engines of other models.
// Everything public may be called from any thread and returns at once.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/error.h"
#include "engine/engine.h"
#include "nn/loader.h"

namespace frugal::engine {

// A text, or a pair of which the second begins at token `second` (nn::EncoderText).
struct EmbedText {
  std::vector<int32_t> tokens;
  int64_t second = -1;
};

struct Embedded {
  std::vector<float> values;  // [texts, width]: a vector of each text, or its score
  size_t width = 0;
  double seconds = 0;  // since it was submitted
};

// The functions are called on the embedder's thread and must be quick. One of the last two is called once, unless the
// request was no longer wanted or the embedder has ended.
struct EmbedRequest {
  std::vector<EmbedText> texts;
  std::function<bool()> wanted;  // asked between chunks
  std::function<void(Embedded)> done;
  std::function<void(const Error&)> failed;
};

class Embedder {
 public:
  // The model, packed, outlives it.
  explicit Embedder(const nn::LoadedModel& model, const Clock& clock = system_clock());
  ~Embedder();
  void stop();  // drops what has not ended, and is not used again

  // Throws Error{invalid_input} for a text without tokens or with more than max_tokens(), and for ids outside the vocabulary; Overloaded
  // when too much waits.
  void submit(EmbedRequest request);

  bool scores_pairs() const { return model_.encoder && model_.encoder->spec.scores_pairs; }  // a cross-encoder: no vectors, one score each
  int64_t max_tokens() const { return model_.embedding.max_tokens; }
  EngineCounts counts() const;  // a chunk is a step
  double step_age() const;      // as Engine's
  double longest_step() const { return longest_step_; }

 private:
  struct Job;
  struct Piece;
  void run();
  std::vector<Piece> plan();  // of what is computed next; empty: the embedder ends
  void step(std::span<const Piece> pieces);
  at::Tensor forward(std::span<const Piece> pieces);  // [pieces, width]
  at::Tensor encoded(std::span<const Piece> pieces) const;
  at::Tensor decoded(std::span<const Piece> pieces) const;
  void keep(const Piece& piece, const at::Tensor& vector);
  void end(const std::shared_ptr<Job>& job, int64_t EngineCounts::*how);

  const nn::LoadedModel& model_;
  const Clock& clock_;
  int team_size_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::list<std::shared_ptr<Job>> jobs_;  // the first one begins the next chunk
  int64_t waiting_tokens_ = 0;
  EngineCounts counts_;
  bool ending_ = false;
  std::atomic<double> alive_at_, longest_step_{0};
  std::thread thread_;
};

}  // namespace frugal::engine
