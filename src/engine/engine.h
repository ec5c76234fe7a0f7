// Many requests at once on one model: a thread that plans steps (scheduler.h), computes them, draws tokens and tells listeners. Everything
// public may be called from any thread and returns at once.
//
// What goes wrong in a request stays there: a step that throws is computed again part by part, and the request whose part throws alone ends
// with that error; the others do not notice. Greedy answers do not depend on who shares a step, on cached beginnings or on preemption, since
// the kernels of packed models compute each row alike in any company.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "engine/choice.h"
#include "engine/scheduler.h"

namespace frugal::engine {

struct EngineOptions {
  SchedulerOptions scheduler;
  nn::CacheType cache = nn::CacheType::f16;
  uint64_t cache_bytes = uint64_t{1} << 30;  // memory for keys and values, taken as it is needed
  int64_t context = 0;                       // most positions of a sequence; 0: the model's
  size_t most_waiting = 256;                 // requests that have not begun
  const Clock* clock = &system_clock();
};

// Sums since the start, and what is now.
struct EngineCounts {
  SchedulerCounts scheduler;
  int64_t steps = 0;
  int64_t prompt_tokens = 0, generated_tokens = 0;
  int64_t ended_stop = 0, ended_length = 0, ended_cancelled = 0, ended_error = 0;
};

class Engine {
 public:
  // The model, packed, outlives it. Throws Error{invalid_input} when the memory holds no block.
  Engine(const nn::LoadedModel& model, const EngineOptions& options);
  ~Engine();
  void stop();  // cancels what runs, and is not used again

  // Checks all that can be wrong with requests before any of them is admitted: throws Error{invalid_input}, or Overloaded when the queue is
  // full. Their numbers, for cancel().
  std::vector<uint64_t> submit(std::vector<std::pair<Request, std::shared_ptr<Listener>>> requests);
  // Its choices end as cancelled within one step; nothing happens when it has ended.
  void cancel(uint64_t request);

  int64_t context() const { return context_ - model_.model->virtual_tokens.count; }  // of text
  EngineCounts counts() const;
  // Seconds since the engine's thread last began a step or found nothing to do; large: it hangs.
  double step_age() const;
  double longest_step() const { return longest_step_; }  // seconds, so far
  // For tests: called before each forward with the sequences of it; may throw.
  std::function<void(const std::vector<StepPart>&)> before_step;

 private:
  struct Running;  // a request
  struct Member {
    std::shared_ptr<Running> request;
    size_t choice = 0;
  };
  struct Command {
    std::shared_ptr<Running> start;  // or
    uint64_t cancel = 0;
  };
  void run();
  bool take_commands();  // false: the engine ends
  void publish_counts();
  std::shared_ptr<Running> checked(Request request, std::shared_ptr<Listener> listener) const;
  void admit(const std::shared_ptr<Running>& request);
  bool read(const StepPart& part) const { return part.until_block >= std::ssize(model_.model->blocks); }  // after this step
  void step(const std::vector<StepPart>& parts);
  void forward(const std::vector<StepPart>& parts);
  struct Rows {  // of logits, floats `stride` apart
    float* first;
    int64_t count, stride;
    size_t width;
  };
  void draw(const StepPart& part, const Rows& rows);
  void tell(const std::vector<StepPart>& parts);
  void take_token(const Member& member, double now);  // that was drawn, and what its listener hears of it
  void tell_piece(const Member& member);
  void end_choice(const Member& member, EndReason reason);
  void fail_request(std::shared_ptr<Running> request, const Error& error);
  void cancel_all(std::shared_ptr<Running> request);
  void fail_all(const std::vector<StepPart>& parts, const Error& error);

  const nn::LoadedModel& model_;
  EngineOptions options_;
  int64_t context_;
  std::shared_ptr<nn::KvCache> cache_;
  Scheduler scheduler_;
  int team_size_;
  std::map<uint64_t, std::shared_ptr<Running>> requests_;  // of the engine's thread
  std::map<const Sequence*, Member> members_;              // the same
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Command> commands_;
  EngineCounts counts_;
  uint64_t next_id_ = 1;
  bool ending_ = false;
  std::atomic<double> alive_at_, longest_step_{0};
  std::thread thread_;
};

// The prompt does not fit into the context.
class PromptTooLong : public Error {
 public:
  using Error::Error;
};

// The queue is full: come again later. To clients 503, not 400.
class Overloaded : public Error {
 public:
  using Error::Error;
};

// Any exception as one of ours.
Error as_error(const std::exception_ptr& exception);

}  // namespace frugal::engine
