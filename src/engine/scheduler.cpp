#include "engine/scheduler.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace frugal::engine {
namespace {

// Fewer prompt tokens cost a step nearly as much: it reads the prompt's keys and values for any number of them.
constexpr int64_t kLeastChunk = 8;
constexpr int64_t kStepsToProbe = 24;
// Rows of logits of one prompt in a step: each is as long as the vocabulary.
constexpr int64_t kMostReadRows = 64;

template <typename Sequences>
void insert_in_order(Sequences& sequences, const std::shared_ptr<Sequence>& sequence) {
  sequences.insert(std::ranges::upper_bound(sequences, sequence->order, {}, [](const auto& other) { return other->order; }), sequence);
}

}  // namespace

// Another number of sequences takes another time.
bool Scheduler::Pace::knows(int64_t now_decoding) const { return decode_seconds > 0 && 4 * std::abs(now_decoding - decoding) <= decoding; }

// A machine that others use as well takes another time each second.
int64_t Scheduler::Pace::beside(int64_t now_decoding) const { return knows(now_decoding) && mixed_steps < kStepsToProbe ? chunk : 0; }

void Scheduler::Pace::add(int64_t now_decoding, int64_t prompt_tokens, double seconds, double stretch, int64_t most) {
  if (now_decoding == 0) return;
  if (prompt_tokens == 0) {
    decode_seconds = knows(now_decoding) ? 0.75 * decode_seconds + 0.25 * seconds : seconds;
    decoding = now_decoding;
    mixed_steps = 0;
    return;
  }
  ++mixed_steps;
  if (decode_seconds <= 0) return;
  // Down at once, up slowly: one step that was disturbed is no reason for large chunks later.
  const double change = std::clamp(stretch * decode_seconds / seconds, 0.5, 1.2);
  if (prompt_tokens < chunk && change >= 1) return;  // the end of a prompt says nothing of larger chunks
  chunk = std::clamp(static_cast<int64_t>(std::lround(static_cast<double>(prompt_tokens) * change)), kLeastChunk, most);
}

Scheduler::Scheduler(std::shared_ptr<nn::KvCache> cache, const SchedulerOptions& options)
    : cache_(std::move(cache)), options_(options), tree_(cache_->pool(), nn::kPageSize) {
  if (options.most_running < 1 || options.step_tokens <= options.most_running || !(options.step_stretch >= 1)) {
    fail(ErrorKind::invalid_input, "scheduler: {} sequences run at most, a step of {} tokens must have one more, and a stretch of {} must be at least 1",
         options.most_running, options.step_tokens, options.step_stretch);
  }
}

int64_t Scheduler::capacity() const { return cache_->pool().capacity() * nn::kPageSize; }

void Scheduler::add(std::shared_ptr<Sequence> sequence) {
  const auto size = std::ssize(sequence->tokens);
  if (size == 0) fail(ErrorKind::invalid_input, "the prompt has no tokens");
  if (size > capacity()) fail(ErrorKind::invalid_input, "the prompt has {} tokens, the KV cache holds {}", size, capacity());
  sequence->room = std::clamp(sequence->room, size, capacity());
  sequence->order = kNotQueued;
  sequence->phase = Sequence::Phase::waiting;
  held_.push_back(std::move(sequence));
}

void Scheduler::queue_held() {
  std::erase_if(held_, [&](const std::shared_ptr<Sequence>& sequence) {
    const Sequence* const before = sequence->after.get();
    if (before && before->phase != Sequence::Phase::gone && std::ssize(before->tokens) == before->prompt_tokens) return false;
    sequence->order = arrivals_++;
    waiting_.push_back(sequence);
    return true;
  });
}

void Scheduler::give_back(Sequence& sequence) {
  if (sequence.state && options_.share_beginnings) {
    const auto full = static_cast<size_t>(sequence.state->length() / nn::kPageSize);
    tree_.insert(sequence.scope, sequence.tokens, sequence.state->blocks().first(full));
  }
  sequence.state.reset();
}

void Scheduler::remove(Sequence& sequence) {
  if (sequence.phase == Sequence::Phase::gone) return;
  give_back(sequence);
  sequence.phase = Sequence::Phase::gone;
  const auto same = [&](const std::shared_ptr<Sequence>& other) { return other.get() == &sequence; };
  std::erase_if(running_, same);
  std::erase_if(waiting_, same);
  std::erase_if(held_, same);
}

bool Scheduler::preempt_younger_than(const Sequence& sequence) {
  if (running_.empty() || running_.back()->order <= sequence.order) return false;
  const std::shared_ptr<Sequence> youngest = running_.back();
  running_.pop_back();
  give_back(*youngest);
  youngest->phase = Sequence::Phase::waiting;

  ++preemptions_;
  insert_in_order(waiting_, youngest);
  return true;
}

bool Scheduler::reserve(Sequence& sequence, int64_t count) {
  while (!sequence.state->reserve(count)) {
    if (!tree_.evict_one() && !preempt_younger_than(sequence)) return false;
  }
  return true;
}

bool Scheduler::start(const std::shared_ptr<Sequence>& sequence) {
  Sequence& s = *sequence;
  s.state = std::make_unique<nn::SequenceState>(cache_);
  if (options_.share_beginnings && !s.reads_everything) {
    // The last token is always computed: its logits are wanted.
    const std::vector<int32_t> blocks = tree_.match(s.scope, std::span(s.tokens).first(s.tokens.size() - 1));
    s.state->adopt(blocks);
  }
  const int64_t cached = s.state->length();
  // Starting takes no running sequence's blocks: it would come back and take them again.
  while (!s.state->reserve(1)) {
    if (tree_.evict_one()) continue;
    s.state.reset();
    return false;
  }
  if (options_.share_beginnings && !s.reads_everything) {
    prefix_queries_ += std::ssize(s.tokens);
    prefix_hits_ += cached;
  }
  if (!s.ran) s.cached_tokens = std::min(cached, s.prompt_tokens);
  s.ran = true;
  s.phase = Sequence::Phase::running;
  insert_in_order(running_, sequence);
  return true;
}

std::vector<StepPart> Scheduler::plan() {
  queue_held();
  std::vector<StepPart> parts;
  const int64_t preemptions = preemptions_;
  const auto left = [](const Sequence& s) { return std::ssize(s.tokens) - s.state->length(); };
  int64_t tokens = 0;
  // Index, not iterator: reserving may preempt the youngest, which are behind.
  for (size_t i = 0; i < running_.size(); ++i) {
    const std::shared_ptr<Sequence> sequence = running_[i];
    if (left(*sequence) != 1) continue;
    if (!reserve(*sequence, 1)) continue;  // older ones hold the rest
    parts.push_back({sequence, sequence->state->length(), 1, true, true});
    ++tokens;
  }
  int64_t budget = options_.step_tokens - tokens;
  if (tokens > 0) budget = std::min(budget, pace_.beside(tokens));
  const auto read_prompt = [&](const std::shared_ptr<Sequence>& sequence) {
    int64_t count = std::min(left(*sequence), budget);
    if (sequence->reads_everything && sequence->state->length() < sequence->prompt_tokens) count = std::min(count, kMostReadRows);
    if (count <= 0 || !reserve(*sequence, count)) return;
    parts.push_back({sequence, sequence->state->length(), count, count == left(*sequence)});
    budget -= count;
  };
  for (size_t i = 0; i < running_.size() && budget > 0; ++i) {
    const std::shared_ptr<Sequence> sequence = running_[i];
    if (left(*sequence) > 1) read_prompt(sequence);
  }
  // Where someone had to give up blocks, nobody new takes any.
  while (!waiting_.empty() && budget > 0 && preemptions_ == preemptions && std::ssize(running_) < options_.most_running) {
    const std::shared_ptr<Sequence> sequence = waiting_.front();
    if (!start(sequence)) break;
    waiting_.pop_front();
    read_prompt(sequence);
  }
  // A sequence that was preempted for an older one is in no part.
  std::erase_if(parts, [](const StepPart& part) { return part.sequence->phase != Sequence::Phase::running; });
  return parts;
}

void Scheduler::done(const std::vector<StepPart>& parts, double seconds) {
  int64_t decoding = 0, prompt_tokens = 0;
  for (const StepPart& part : parts) {
    Sequence& s = *part.sequence;
    (part.decodes ? decoding : prompt_tokens) += part.count;
    if (!options_.share_beginnings || s.phase != Sequence::Phase::running) continue;
    // A prompt that was read is a beginning for others from now on.
    if (part.samples && part.begin < s.prompt_tokens) {
      const auto full = static_cast<size_t>(s.state->length() / nn::kPageSize);
      s.state->use_instead(tree_.insert(s.scope, s.tokens, s.state->blocks().first(full)));
    }
  }
  pace_.add(decoding, prompt_tokens, seconds, options_.step_stretch, options_.step_tokens);
}

SchedulerCounts Scheduler::counts() {
  SchedulerCounts counts;
  counts.running = std::ssize(running_);
  counts.waiting = std::ssize(waiting_) + std::ssize(held_);
  counts.blocks = cache_->pool().capacity();
  // Each block once: marked with the number of this call.
  ++count_calls_;
  for (const auto& sequence : running_) {
    for (const int32_t block : sequence->state->blocks()) {
      const auto index = static_cast<size_t>(block);
      if (counted_.size() <= index) counted_.resize(index + 1);
      if (std::exchange(counted_[index], count_calls_) != count_calls_) ++counts.blocks_in_use;
    }
  }
  counts.blocks_cached = cache_->pool().used() - counts.blocks_in_use;
  counts.preemptions = preemptions_;
  counts.prefix_queries = prefix_queries_;
  counts.prefix_hits = prefix_hits_;
  return counts;
}

}  // namespace frugal::engine
