#include "engine/scheduler.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <utility>

#include "base/error.h"

namespace frugal::engine {
namespace {

// Prompt tokens that go together: with fewer, a block's weights, keys and values are read for too little work.
constexpr int64_t kChunk = 96, kLeastChunk = 8;
constexpr int64_t kMostPrompts = 4;  // that lengthen a step, each as much
constexpr int64_t kMostReading = 8;  // prompts that are read by turns
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
double Scheduler::Pace::beside(int64_t now_decoding, int64_t prompts, double stretch) const {
  if (!knows(now_decoding) || mixed_steps >= kStepsToProbe) return 0;
  if (token_seconds <= 0) return static_cast<double>(kLeastChunk);
  // Several prompts that wait keep as many streams from decoding, which would cost little more.
  return (stretch - 1) * static_cast<double>(std::min(prompts, kMostPrompts)) * decode_seconds / token_seconds;
}

void Scheduler::Pace::add(int64_t now_decoding, double prompt_tokens, double seconds) {
  if (now_decoding == 0) return;
  if (prompt_tokens == 0) {
    decode_seconds = knows(now_decoding) ? 0.75 * decode_seconds + 0.25 * seconds : seconds;
    decoding = now_decoding;
    mixed_steps = 0;
    return;
  }
  ++mixed_steps;
  if (decode_seconds <= 0) return;
  // A step that was disturbed says little of the next ones.
  const double now = std::max(seconds - decode_seconds, 0.05 * seconds) / prompt_tokens;
  token_seconds = token_seconds <= 0 ? now : 0.9 * token_seconds + 0.1 * std::min(now, 2 * token_seconds);
}

Scheduler::Scheduler(std::shared_ptr<nn::KvCache> cache, const SchedulerOptions& options)
    : cache_(std::move(cache)), options_(options), tree_(cache_->pool(), nn::kPageSize) {
  if (options.most_running < 1 || options.step_tokens <= options.most_running || !(options.step_stretch >= 1) || options.blocks < 1) {
    fail(ErrorKind::invalid_input,
         "scheduler: {} sequences run at most, a step of {} tokens must have one more, a stretch of {} must be at least 1, and {} blocks too",
         options.most_running, options.step_tokens, options.step_stretch, options.blocks);
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
    try {
      tree_.insert(sequence.scope, sequence.tokens, sequence.state->blocks().first(full));
    } catch (const std::bad_alloc&) {  // then nobody shares it
    }
  }
  sequence.state.reset();
  sequence.passing = false;
  std::erase_if(passing_, [&](const StepPart& part) { return part.sequence.get() == &sequence; });
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
  insert_in_order(waiting_, youngest);  // first: it may throw
  running_.pop_back();
  give_back(*youngest);
  youngest->phase = Sequence::Phase::waiting;
  ++preemptions_;
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

bool Scheduler::reads(const std::shared_ptr<Sequence>& sequence) { return left(*sequence) > 1; }
int64_t Scheduler::left(const Sequence& sequence) { return std::ssize(sequence.tokens) - (sequence.state ? sequence.state->length() : 0); }

// Starts prompts behind the ones that are being read, in order of arrival: some to choose the shortest from, each with room for all of it. One
// that waits for a beginning that is just being read goes on waiting, and so do those behind it.
void Scheduler::start_ahead() {
  int64_t blocks = cache_->pool().capacity(), reading = std::ranges::count_if(running_, reads);
  for (const auto& sequence : running_) blocks -= nn::KvCache::blocks_for(std::ssize(sequence->tokens));
  while (!waiting_.empty() && reading < kMostReading && std::ssize(running_) < options_.most_running) {
    const std::shared_ptr<Sequence> next = waiting_.front();
    const auto begins_alike = [&](const std::shared_ptr<Sequence>& other) {
      return reads(other) && other->scope == next->scope && std::ssize(other->tokens) > nn::kPageSize && std::ssize(next->tokens) > nn::kPageSize &&
             std::equal(next->tokens.begin(), next->tokens.begin() + nn::kPageSize, other->tokens.begin());
    };
    blocks -= nn::KvCache::blocks_for(std::ssize(next->tokens));
    if (blocks < 0 || next->ran || (options_.share_beginnings && std::ranges::any_of(running_, begins_alike)) || !start(next)) return;
    waiting_.pop_front();
    ++reading;
  }
}

// Of what prompts have yet to be read, so many tokens: in order of arrival, but every other time the shortest first.
std::vector<StepPart> Scheduler::prompt_parts(int64_t most_tokens) {
  std::vector<StepPart> parts;
  const int64_t preemptions = preemptions_;
  const auto read = [&](const std::shared_ptr<Sequence>& sequence) {
    const int64_t rest = left(*sequence);
    int64_t count = std::min(rest, most_tokens);
    if (sequence->reads_everything && sequence->state->length() < sequence->prompt_tokens) count = std::min(count, kMostReadRows);
    if (count <= 0 || !reserve(*sequence, count)) return;
    parts.push_back({sequence, sequence->state->length(), count, count == rest});
    most_tokens -= count;
  };
  shortest_first_ = !shortest_first_;
  std::shared_ptr<Sequence> shortest;
  if (shortest_first_ && std::ranges::any_of(running_, reads)) {
    start_ahead();
    for (const auto& sequence : running_) {
      if (reads(sequence) && (!shortest || left(*sequence) < left(*shortest))) shortest = sequence;
    }
    read(shortest);
  }
  // Index, not iterator: reserving may preempt the youngest, which are behind.
  for (size_t i = 0; i < running_.size() && most_tokens > 0; ++i) {
    const std::shared_ptr<Sequence> sequence = running_[i];
    if (sequence != shortest && reads(sequence)) read(sequence);
  }
  // Where someone had to give up blocks, nobody new takes any.
  while (!waiting_.empty() && most_tokens > 0 && preemptions_ == preemptions && std::ssize(running_) < options_.most_running) {
    const std::shared_ptr<Sequence> sequence = waiting_.front();
    if (!start(sequence)) break;
    waiting_.pop_front();
    read(sequence);
  }
  return parts;
}

std::vector<StepPart> Scheduler::plan() {
  queue_held();
  std::vector<StepPart> parts;
  for (size_t i = 0; i < running_.size(); ++i) {
    const std::shared_ptr<Sequence> sequence = running_[i];
    if (sequence->passing || left(*sequence) != 1) continue;
    if (!reserve(*sequence, 1)) continue;  // older ones hold the rest
    parts.push_back({sequence, sequence->state->length(), 1, true, true, 0, options_.blocks});
  }
  const int64_t decoding = std::ssize(parts);
  // What goes to prompts: token after token through one block.
  const double depth = static_cast<double>(options_.blocks), all = static_cast<double>(options_.step_tokens);
  const int64_t prompts = std::ranges::count_if(running_, reads) + std::ssize(waiting_);
  const double work = depth * (decoding > 0 ? std::min(pace_.beside(decoding, prompts, options_.step_stretch), all) : all);
  if (work > 0) {
    if (passing_.empty()) {
      // A chunk that whole blocks make a step of.
      const double blocks = std::clamp(std::round(work / kChunk), 1.0, depth);
      const auto chunk = std::max(kLeastChunk, static_cast<int64_t>(std::lround(work / blocks)));
      passing_ = prompt_parts(std::min(chunk, options_.step_tokens - decoding));
      // One of them may have been preempted for an older one that began after it.
      std::erase_if(passing_, [](const StepPart& part) { return part.sequence->phase != Sequence::Phase::running; });
      for (const StepPart& part : passing_) part.sequence->passing = true;
    }
    int64_t tokens = 0;
    for (const StepPart& part : passing_) tokens += part.count;
    // A chunk was made for whole blocks; since then there may be a little more or less time.
    const auto most = std::max<int64_t>(1, static_cast<int64_t>(work / static_cast<double>(std::max<int64_t>(1, tokens)) + 0.3));
    for (StepPart& part : passing_) {
      const int64_t left = options_.blocks - part.first_block, steps = (left + most - 1) / most;
      part.until_block = part.first_block + (left + steps - 1) / steps;  // in steps of equal length
      parts.push_back(part);
    }
  }
  // A sequence that was preempted for an older one is in no part.
  std::erase_if(parts, [](const StepPart& part) { return part.sequence->phase != Sequence::Phase::running; });
  return parts;
}

void Scheduler::done(const std::vector<StepPart>& parts, double seconds) {
  int64_t decoding = 0, prompt_work = 0;
  for (const StepPart& part : parts) {
    Sequence& s = *part.sequence;
    (part.decodes ? decoding : prompt_work) += part.count * (part.decodes ? 1 : part.until_block - part.first_block);
    if (s.phase != Sequence::Phase::running) continue;
    const auto same = std::ranges::find_if(passing_, [&](const StepPart& other) { return other.sequence == part.sequence; });
    if (part.until_block < options_.blocks) {
      FRUGAL_ASSERT(same != passing_.end());
      same->first_block = part.until_block;
      continue;
    }
    if (same != passing_.end()) passing_.erase(same);
    s.passing = false;
    // A prompt that was read is a beginning for others from now on.
    if (options_.share_beginnings && part.samples && part.begin < s.prompt_tokens) {
      const auto full = static_cast<size_t>(s.state->length() / nn::kPageSize);
      s.state->use_instead(tree_.insert(s.scope, s.tokens, s.state->blocks().first(full)));
    }
  }
  pace_.add(decoding, static_cast<double>(prompt_work) / static_cast<double>(options_.blocks), seconds);
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
