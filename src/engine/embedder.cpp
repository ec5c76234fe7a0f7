#include "engine/embedder.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <exception>

#include "base/team.h"
#include "engine/turn.h"

namespace frugal::engine {
namespace {

// So many tokens keep the kernels busy; fewer while an engine computes too, which then waits for some hundredths of a second between two
// tokens. A text of an encoder is never cut.
constexpr int64_t kChunkTokens = 256, kPoliteTokens = 64;
constexpr size_t kMostJobs = 256;
constexpr int64_t kMostWaitingTokens = int64_t{16} << 20;

// Without memory even for an answer, the request is let go unanswered.
template <typename Function, typename... Arguments>
void tell(const Function& function, Arguments&&... arguments) {
  try {
    function(std::forward<Arguments>(arguments)...);
  } catch (...) {}
}

}  // namespace

struct Embedder::Job {
  EmbedRequest request;
  Embedded result;
  double begin = 0;
  size_t next = 0;     // text that no chunk has yet
  size_t missing = 0;  // texts without result
  bool over = false;
  // Of a decoder's text that is longer than a chunk, the next one: what was read.
  int64_t read = 0;
  std::unique_ptr<nn::SequenceState> state;
  at::Tensor sum;
};

// All of a text, or the next part of a decoder's long one.
struct Embedder::Piece {
  std::shared_ptr<Job> job;
  size_t text = 0;
  int64_t begin = 0, count = 0;

  std::span<const int32_t> tokens() const { return std::span(job->request.texts[text].tokens).subspan(static_cast<size_t>(begin), static_cast<size_t>(count)); }
  int64_t length() const { return std::ssize(job->request.texts[text].tokens); }
  bool whole() const { return count == length(); }
};

Embedder::Embedder(const nn::LoadedModel& model, const Clock& clock) : model_(model), clock_(clock), team_size_(team_size()), alive_at_(clock.seconds()) {
  thread_ = std::thread([this] { run(); });
}

Embedder::~Embedder() { stop(); }

void Embedder::stop() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_all();
  if (!thread_.joinable()) return;
  thread_.join();
  jobs_.clear();
}

void Embedder::submit(EmbedRequest request) {
  const int64_t vocabulary = model_.encoder ? model_.encoder->spec.vocab : model_.model->spec.vocab;
  int64_t tokens = 0;
  for (const EmbedText& text : request.texts) {
    const int64_t size = std::ssize(text.tokens);
    if (size == 0) fail(ErrorKind::invalid_input, "a text has no tokens");
    if (size > max_tokens()) fail(ErrorKind::invalid_input, "a text has {} tokens, the model takes {}", size, max_tokens());
    const auto wrong = std::ranges::find_if(text.tokens, [&](int32_t id) { return id < 0 || id >= vocabulary; });
    if (wrong != text.tokens.end()) fail(ErrorKind::invalid_input, "token id {} is outside 0..{}", *wrong, vocabulary - 1);
    tokens += size;
  }
  if (request.texts.empty()) fail(ErrorKind::invalid_input, "there is no text");
  const auto job = std::make_shared<Job>();
  job->missing = request.texts.size();
  job->request = std::move(request);
  job->begin = clock_.seconds();
  {
    const std::lock_guard lock(mutex_);
    if (jobs_.size() >= kMostJobs || (!jobs_.empty() && waiting_tokens_ + tokens > kMostWaitingTokens)) {
      throw Overloaded(ErrorKind::out_of_memory, fmt::format("{} requests for embeddings wait already", jobs_.size()));
    }
    waiting_tokens_ += tokens;
    jobs_.push_back(job);
  }
  wake_.notify_all();
}

EngineCounts Embedder::counts() const {
  const std::lock_guard lock(mutex_);
  EngineCounts counts = counts_;
  counts.scheduler.running = std::ssize(jobs_);
  return counts;
}

double Embedder::step_age() const { return clock_.seconds() - alive_at_.load(); }

// Rounds over the requests, a piece of each, until the chunk is full. One long text at a time is open: its keys and values take memory.
std::vector<Embedder::Piece> Embedder::plan() {
  std::unique_lock lock(mutex_);
  for (;;) {
    while (jobs_.empty() && !ending_) {
      alive_at_ = clock_.seconds();
      wake_.wait_for(lock, std::chrono::seconds(1));
    }
    if (ending_) return {};
    const std::list<std::shared_ptr<Job>> all = jobs_;
    lock.unlock();
    for (const std::shared_ptr<Job>& job : all) {
      if (!job->request.wanted()) end(job, &EngineCounts::ended_cancelled);
    }
    lock.lock();
    if (!jobs_.empty()) break;
  }
  const int64_t most = compute_turn().busy() ? kPoliteTokens : kChunkTokens;
  std::vector<Piece> pieces;
  int64_t total = 0;
  bool open = std::ranges::any_of(jobs_, [](const auto& job) { return job->state != nullptr; });
  for (bool added = true; added;) {
    added = false;
    for (const std::shared_ptr<Job>& job : jobs_) {
      if (job->next == job->request.texts.size()) continue;
      Piece piece{job, job->next, job->read, std::ssize(job->request.texts[job->next].tokens) - job->read};
      const bool in_parts = model_.model && piece.length() > kChunkTokens;
      if (in_parts && (!job->state && open)) continue;
      if (in_parts) piece.count = std::min(piece.count, most);
      if (total > 0 && total + piece.count > most) continue;
      if (in_parts && !job->state) job->state = std::make_unique<nn::SequenceState>(model_.model->spec, nn::CacheType::f16);
      open = open || in_parts;
      total += piece.count;
      if (piece.begin + piece.count == piece.length())
        ++job->next, job->read = 0;
      else
        job->read += piece.count;
      pieces.push_back(std::move(piece));
      added = true;
    }
    if (total >= most) break;
  }
  jobs_.splice(jobs_.end(), jobs_, jobs_.begin());
  return pieces;
}

at::Tensor Embedder::encoded(std::span<const Piece> pieces) const {
  std::vector<nn::EncoderText> texts;
  std::vector<nn::RowRange> rows;
  int64_t begin = 0;
  for (const Piece& piece : pieces) {
    texts.push_back({piece.tokens(), piece.job->request.texts[piece.text].second});
    rows.push_back({begin, piece.count});
    begin += piece.count;
  }
  const at::Tensor hidden = model_.encoder->forward(texts);
  return scores_pairs() ? model_.encoder->scores(hidden, rows) : nn::pool(hidden, rows, model_.embedding.pooling);
}

at::Tensor Embedder::decoded(std::span<const Piece> pieces) const {
  nn::Batch batch;
  std::vector<nn::RowRange> rows;
  for (const Piece& piece : pieces) {
    batch.sequences.push_back({std::ssize(batch.tokens), piece.count, piece.whole() ? nullptr : piece.job->state.get()});
    rows.push_back({std::ssize(batch.tokens), piece.count});
    const std::span<const int32_t> tokens = piece.tokens();
    batch.tokens.insert(batch.tokens.end(), tokens.begin(), tokens.end());
  }
  return nn::pool(model_.model->forward(batch, {nn::ForwardOptions::Logits::none}).hidden, rows, model_.embedding.pooling);
}

void Embedder::keep(const Piece& piece, const at::Tensor& vector) {
  Job& job = *piece.job;
  at::Tensor whole = vector;
  if (!piece.whole()) {
    const nn::Pooling pooling = model_.embedding.pooling;
    if (pooling == nn::Pooling::mean)
      job.sum = piece.begin == 0 ? vector * piece.count : job.sum + vector * piece.count;
    else if (pooling == nn::Pooling::last || piece.begin == 0)
      job.sum = vector;
    if (piece.begin + piece.count < piece.length()) return;
    whole = pooling == nn::Pooling::mean ? job.sum / piece.length() : job.sum;
    job.state = nullptr;
  }
  if (!scores_pairs() && model_.embedding.normalize) whole = nn::normalized(whole);
  whole = whole.contiguous();
  job.result.width = static_cast<size_t>(whole.numel());
  job.result.values.resize(job.result.width * job.request.texts.size());
  std::copy_n(whole.const_data_ptr<float>(), job.result.width, job.result.values.data() + piece.text * job.result.width);
  --job.missing;
}

at::Tensor Embedder::forward(std::span<const Piece> pieces) {
  const std::lock_guard turn(compute_turn());
  const double begin = clock_.seconds();
  alive_at_ = begin;
  const at::Tensor vectors = model_.encoder ? encoded(pieces) : decoded(pieces);
  longest_step_ = std::max(longest_step_.load(), clock_.seconds() - begin);
  return vectors;
}

void Embedder::end(const std::shared_ptr<Job>& job, int64_t EngineCounts::*how) {
  job->over = true;
  const std::lock_guard lock(mutex_);
  ++(counts_.*how);
  for (const EmbedText& text : job->request.texts) waiting_tokens_ -= std::ssize(text.tokens);
  jobs_.remove(job);
}

void Embedder::step(std::span<const Piece> pieces) {
  at::Tensor together;
  try {
    together = forward(pieces);
  } catch (...) {  // whose piece throws alone is at fault
  }
  int64_t tokens = 0;
  std::vector<std::shared_ptr<Job>> complete;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const std::shared_ptr<Job>& job = pieces[i].job;
    if (job->over) continue;
    tokens += pieces[i].count;
    try {
      keep(pieces[i], together.defined() ? together[static_cast<int64_t>(i)] : forward(pieces.subspan(i, 1))[0]);
    } catch (...) {
      end(job, &EngineCounts::ended_error);
      tell(job->request.failed, as_error(std::current_exception()));
    }
    if (!job->over && job->missing == 0) complete.push_back(job);
  }
  {
    const std::lock_guard lock(mutex_);
    ++counts_.steps;
    counts_.prompt_tokens += tokens;
  }
  for (const std::shared_ptr<Job>& job : complete) {
    end(job, &EngineCounts::ended_stop);
    job->result.seconds = clock_.seconds() - job->begin;
    tell(job->request.done, std::move(job->result));
  }
}

void Embedder::run() {
  const c10::InferenceMode inference;
  set_team_size(team_size_);
  for (;;) {
    const std::vector<Piece> pieces = plan();
    if (pieces.empty()) return;
    step(pieces);
  }
}

}  // namespace frugal::engine
