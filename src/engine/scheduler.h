// What the next step of the engine computes: continuous batching at the level of steps (Orca, OSDI 2022), prompts in chunks beside decoding
// sequences (Sarathi-Serve, arXiv 2403.02310), paged keys and values (PagedAttention, arXiv 2309.06180) with shared beginnings, and
// preemption by recomputation when the cache is full. A state machine without thread, clock or model of its own: whoever drives it plans a
// step, computes it, and says how long that took. Not thread-safe.
//
// The rules: a decoding sequence is in every step. What is left of a step's time goes to prompts, in order of arrival, but every other time
// to the shortest first, so that nobody waits for all of a long one; beside decoding sequences as much as lengthens the step to less than
// twice what it is without (step_stretch), by more where several prompts wait. What steps take is measured all the time, and now and then one
// is without prompts for that. Where there is little time, a chunk of a size that is worth its reading of weights, keys and values goes
// through some of the model's blocks in each step (layered prefill, arXiv 2510.08055), not fewer tokens through all. In memory the oldest
// sequence never waits for a younger one: when blocks run out, the prefix tree gives up what nobody uses, then the youngest running sequence
// gives up all and waits in front of the queue.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "engine/prefix_tree.h"
#include "nn/state.h"

namespace frugal::engine {

// One stream of tokens. The scheduler changes what it says below; the owner appends to `tokens` what was sampled.
struct Sequence {
  std::vector<int32_t> tokens;  // the prompt, then what was generated
  int64_t prompt_tokens = 0;
  int64_t room = 0;                 // most positions that it may come to, at least prompt_tokens
  std::string scope;                // of cached beginnings: an API key, an adapter
  bool reads_everything = false;    // wants the logits of its prompt: cached beginnings are no use to it
  std::shared_ptr<Sequence> after;  // arrives when that one has read its prompt (n choices of one request), or is gone

  // Set by the scheduler.
  enum class Phase { waiting, running, gone } phase = Phase::waiting;
  std::unique_ptr<nn::SequenceState> state;  // while running
  uint64_t order = 0;                        // of arrival
  int64_t cached_tokens = 0;                 // of the prompt, found in the prefix tree when it first ran
  bool passing = false;                      // some of its tokens are on their way through the blocks
  bool ran = false;
};

struct SchedulerOptions {
  int64_t most_running = 256;
  int64_t step_tokens = 512;  // of one step; more than most_running
  int64_t blocks = 1;         // of the model
  double step_stretch = 1.9;  // beside decoding sequences, for one prompt; four at most lengthen a step, each as much
  bool share_beginnings = true;
};

// Tokens [begin, begin + count) of a sequence, at these positions, and the blocks of the model that they go through in this step. Those that
// pass the last one are read; the last of them gives the next token where `samples`.
struct StepPart {
  std::shared_ptr<Sequence> sequence;
  int64_t begin = 0, count = 0;
  bool samples = false;
  bool decodes = false;  // the token that was sampled last
  int64_t first_block = 0, until_block = 0;
};

struct SchedulerCounts {
  int64_t running = 0, waiting = 0;
  int64_t blocks = 0, blocks_in_use = 0, blocks_cached = 0;  // in use by sequences; kept only for their beginnings
  int64_t preemptions = 0;
  int64_t prefix_queries = 0, prefix_hits = 0;  // tokens
};

class Scheduler {
 public:
  explicit Scheduler(std::shared_ptr<nn::KvCache> cache, const SchedulerOptions& options = {});

  // Positions that one sequence can have at most: all blocks.
  int64_t capacity() const;
  // Throws Error{invalid_input} with both numbers for a prompt that could never run. `room` is cut to the capacity.
  void add(std::shared_ptr<Sequence> sequence);
  // It ended, or its client left: its blocks are free (or kept as a beginning) at once. In any phase, any number of times.
  void remove(Sequence& sequence);

  // The parts of the next step, with room reserved for them; empty: nothing can run, and then nothing waits either. Those that end before
  // the model's last block, or began behind its first, are the last ones, and all go through the same blocks.
  std::vector<StepPart> plan();
  // They were computed, in `seconds`, and the states of those that were read advanced. What was sampled is appended after this, before the next plan(). A step that
  // failed is just planned again.
  void done(const std::vector<StepPart>& parts, double seconds);

  bool idle() const { return running_.empty() && waiting_.empty() && held_.empty(); }
  SchedulerCounts counts();

 private:
  // How much of prompts goes beside decoding sequences, in tokens through all blocks: held by what steps take, with and without any.
  struct Pace {
    double decode_seconds = 0;                                               // of a step without prompts, a running mean; 0: not known
    int64_t decoding = 0;                                                    // sequences in it
    double token_seconds = 0;                                                // what a token of a prompt adds, a running mean; 0: not known
    int64_t mixed_steps = 0;                                                 // since the last step without prompts
    bool knows(int64_t decoding) const;                                      // what a step of so many takes
    double beside(int64_t decoding, int64_t prompts, double stretch) const;  // 0: this step is to be one without
    void add(int64_t decoding, double prompt_tokens, double seconds);
  };
  static constexpr uint64_t kNotQueued = ~uint64_t{0};
  void queue_held();
  static int64_t left(const Sequence& sequence);  // tokens that are not read
  static bool reads(const std::shared_ptr<Sequence>& sequence);
  void start_ahead();
  std::vector<StepPart> prompt_parts(int64_t most_tokens);
  bool start(const std::shared_ptr<Sequence>& sequence);
  bool reserve(Sequence& sequence, int64_t count);
  bool preempt_younger_than(const Sequence& sequence);
  void give_back(Sequence& sequence);

  std::shared_ptr<nn::KvCache> cache_;
  SchedulerOptions options_;
  PrefixTree tree_;
  std::vector<std::shared_ptr<Sequence>> held_;    // added; in the queue from the next plan on, or when `after` allows it
  std::deque<std::shared_ptr<Sequence>> waiting_;  // in order of arrival, as running_
  std::vector<std::shared_ptr<Sequence>> running_;
  bool shortest_first_ = true;     // of the last chunk
  std::vector<StepPart> passing_;  // on their way through the blocks, all at the same one
  Pace pace_;
  uint64_t arrivals_ = 0, count_calls_ = 0;
  std::vector<uint64_t> counted_;  // by block
  int64_t preemptions_ = 0, prefix_queries_ = 0, prefix_hits_ = 0;
};

}  // namespace frugal::engine
