#include "engine/engine.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <exception>

#include "base/team.h"
#include "engine/model_sampling.h"
#include "engine/turn.h"

namespace frugal::engine {

Error as_error(const std::exception_ptr& exception) {
  try {
    std::rethrow_exception(exception);
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return {ErrorKind::out_of_memory, "there is not enough memory for this request"};
  } catch (const std::exception& error) {
    return {ErrorKind::internal, error.what()};
  } catch (...) {
    return {ErrorKind::internal, "an unknown exception"};
  }
}

namespace {

int32_t blocks_of(const nn::LoadedModel& model, const EngineOptions& options) {
  const nn::KvCache empty(model.model->spec, options.cache, 0);
  const uint64_t blocks = options.cache_bytes / static_cast<uint64_t>(std::max<int64_t>(1, empty.block_bytes()));
  if (blocks == 0) {
    fail(ErrorKind::invalid_input, "{} bytes for keys and values: one block of {} positions takes {}", options.cache_bytes, nn::kPageSize, empty.block_bytes());
  }
  return static_cast<int32_t>(std::min<uint64_t>(blocks, nn::BlockPool::kUnlimited - 1));
}

SchedulerOptions for_depth(SchedulerOptions options, int64_t blocks) {
  options.blocks = std::max<int64_t>(1, blocks);
  return options;
}

}  // namespace

struct Engine::Running {
  uint64_t id = 0;
  Request request;
  std::shared_ptr<Listener> listener;
  std::vector<std::unique_ptr<Choice>> choices;
  std::vector<std::shared_ptr<Sequence>> sequences;
  std::vector<double> first_ran, first_token;  // times of each choice, 0: not yet
  double arrived = 0;
  size_t open = 0;  // choices that have not ended
};

Engine::Engine(const nn::LoadedModel& model, const EngineOptions& options)
    : model_(model),
      options_(options),
      context_(options.context > 0 ? options.context : model.model->spec.context_length),
      cache_(std::make_shared<nn::KvCache>(model.model->spec, options.cache, blocks_of(model, options), context_)),
      scheduler_(cache_, for_depth(options.scheduler, std::ssize(model.model->blocks))),
      team_size_(team_size()),
      alive_at_(options.clock->seconds()) {
  context_ = std::min(context_, scheduler_.capacity());
  thread_ = std::thread([this] { run(); });
}

Engine::~Engine() { stop(); }

void Engine::stop() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::shared_ptr<Engine::Running> Engine::checked(Request request, std::shared_ptr<Listener> listener) const {
  auto running = std::make_shared<Running>();
  running->request = std::move(request);
  running->listener = std::move(listener);
  const Request& r = running->request;
  const auto size = std::ssize(r.prompt);
  const int64_t vocabulary = sampled_vocab(model_);
  if (size == 0) fail(ErrorKind::invalid_input, "the prompt has no tokens");
  if (size + (r.max_tokens == 0 ? 0 : 1) > context()) {
    throw PromptTooLong(ErrorKind::invalid_input, fmt::format("the prompt has {} tokens, the context holds {}", size, context()));
  }
  for (const std::vector<int32_t>* ids : {&r.prompt, &r.stop_ids}) {
    const auto wrong = std::ranges::find_if(*ids, [&](int32_t id) { return id < 0 || id >= vocabulary; });
    if (wrong != ids->end()) fail(ErrorKind::invalid_input, "token id {} is outside 0..{}", *wrong, vocabulary - 1);
  }
  if (r.choices < 1) fail(ErrorKind::invalid_input, "{} choices", r.choices);
  for (int64_t i = 0; i < r.choices; ++i) running->choices.push_back(std::make_unique<Choice>(model_, r, i));
  running->open = running->choices.size();
  running->first_ran.assign(running->open, 0);
  running->first_token.assign(running->open, 0);
  running->arrived = options_.clock->seconds();
  return running;
}

std::vector<uint64_t> Engine::submit(std::vector<std::pair<Request, std::shared_ptr<Listener>>> requests) {
  std::vector<std::shared_ptr<Running>> all;
  for (auto& [request, listener] : requests) all.push_back(checked(std::move(request), std::move(listener)));
  std::vector<uint64_t> ids;
  {
    const std::lock_guard lock(mutex_);
    const auto starts = static_cast<size_t>(std::ranges::count_if(commands_, [](const Command& command) { return command.start != nullptr; }));
    const size_t waiting = starts + static_cast<size_t>(counts_.scheduler.waiting);
    if (waiting + all.size() > options_.most_waiting) throw Overloaded(ErrorKind::out_of_memory, fmt::format("{} requests wait already", waiting));
    for (const auto& running : all) {
      ids.push_back(running->id = next_id_++);
      commands_.push_back({running, 0});
    }
  }
  wake_.notify_all();
  return ids;
}

void Engine::cancel(uint64_t request) {
  {
    const std::lock_guard lock(mutex_);
    commands_.push_back({nullptr, request});
  }
  wake_.notify_all();
}

EngineCounts Engine::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

double Engine::step_age() const { return options_.clock->seconds() - alive_at_.load(); }

void Engine::run() {
  const c10::InferenceMode inference;
  set_team_size(team_size_);  // OpenMP knows a size for each thread that enters it
  while (take_commands()) {
    alive_at_ = options_.clock->seconds();
    std::vector<StepPart> parts;
    try {
      parts = scheduler_.plan();
      publish_counts();
      if (!parts.empty()) step(parts);
    } catch (...) {  // of no request in particular, such as memory for the books
      fail_all(parts, as_error(std::current_exception()));
    }
    // With nothing else running, the first cannot run at all: the system gives the cache no memory.
    if (parts.empty() && !requests_.empty()) {
      fail_request(requests_.begin()->second, Error(ErrorKind::out_of_memory, "there is not enough memory for the keys and values of this request"));
    }
  }
  while (!requests_.empty()) cancel_all(requests_.begin()->second);
}

void Engine::publish_counts() {
  const SchedulerCounts now = scheduler_.counts();
  const std::lock_guard lock(mutex_);
  counts_.scheduler = now;
}

bool Engine::take_commands() {
  std::vector<Command> commands;
  {
    std::unique_lock lock(mutex_);
    while (commands_.empty() && !ending_ && scheduler_.idle()) {
      alive_at_ = options_.clock->seconds();
      wake_.wait_for(lock, std::chrono::seconds(1));
    }
    commands.swap(commands_);
    if (ending_) {
      for (const Command& command : commands) {
        if (command.start) admit(command.start);
      }
      return false;
    }
  }
  for (const Command& command : commands) {
    const auto found = requests_.find(command.cancel);
    const std::shared_ptr<Running> request = command.start ? command.start : found != requests_.end() ? found->second : nullptr;
    if (!request) continue;  // it has ended
    try {
      command.start ? admit(request) : cancel_all(request);
    } catch (...) {
      fail_request(request, as_error(std::current_exception()));
    }
  }
  return true;
}

void Engine::admit(const std::shared_ptr<Running>& request) {
  const Request& r = request->request;
  requests_[request->id] = request;
  for (size_t i = 0; i < request->choices.size(); ++i) {
    auto sequence = std::make_shared<Sequence>();
    sequence->tokens = model_.model->virtual_ids();
    sequence->tokens.insert(sequence->tokens.end(), r.prompt.begin(), r.prompt.end());
    sequence->prompt_tokens = std::ssize(sequence->tokens);
    sequence->room = r.max_tokens < 0 ? context_ : std::min(context_, sequence->prompt_tokens + r.max_tokens);
    sequence->scope = r.scope;
    sequence->reads_everything = r.prompt_logprobs;
    if (i > 0) sequence->after = request->sequences.front();
    request->sequences.push_back(sequence);
    members_[sequence.get()] = {request, i};
    scheduler_.add(sequence);
  }
}

void Engine::step(const std::vector<StepPart>& parts) {
  const double begin = options_.clock->seconds();
  for (const StepPart& part : parts) {
    const Member& member = members_.at(part.sequence.get());
    double& first = member.request->first_ran[member.choice];
    if (first == 0) first = begin;
  }
  std::vector<StepPart> computed;
  computed.reserve(parts.size());
  try {
    forward(parts);
  } catch (...) {
    for (const StepPart& part : parts) {
      const Sequence& s = *part.sequence;
      if (s.phase != Sequence::Phase::running) continue;  // another choice of a request that has failed
      try {
        if (s.state->length() != part.begin || s.state->passage.next_block != part.first_block) throw;  // it came after the model had computed all
        forward({part});
      } catch (...) {
        fail_request(members_.at(part.sequence.get()).request, as_error(std::current_exception()));
      }
    }
  }
  int64_t prompt_tokens = 0;
  for (const StepPart& part : parts) {
    if (part.sequence->phase != Sequence::Phase::running) continue;
    computed.push_back(part);
    if (read(part)) prompt_tokens += std::clamp(part.sequence->prompt_tokens - part.begin, int64_t{0}, part.count);
  }
  scheduler_.done(computed, options_.clock->seconds() - begin);
  {
    const std::lock_guard lock(mutex_);
    ++counts_.steps;
    counts_.prompt_tokens += prompt_tokens;
  }
  tell(computed);
}

void Engine::forward(const std::vector<StepPart>& parts) {
  if (before_step) before_step(parts);
  nn::Batch batch;
  for (const StepPart& part : parts) {
    const Sequence& s = *part.sequence;
    const auto first = s.tokens.begin() + part.begin;
    const bool reads_everything = s.reads_everything && part.begin < s.prompt_tokens;
    nn::SequenceSlice& slice = batch.sequences.emplace_back(std::ssize(batch.tokens), part.count, s.state.get());
    slice.logit_rows = !read(part) ? 0 : reads_everything ? part.count : part.samples ? 1 : 0;
    if (part.first_block > 0 || !read(part)) slice.until_block = part.until_block;
    batch.tokens.insert(batch.tokens.end(), first, first + part.count);
  }
  // Once the model has advanced the states there is no way back: from here on nothing is allocated but in a request's own try.
  std::vector<std::exception_ptr> problems(parts.size());
  const std::lock_guard lock(compute_turn());
  const double begin = options_.clock->seconds();
  alive_at_ = begin;
  const at::Tensor logits = model_.model->forward(batch, {nn::ForwardOptions::Logits::chosen}).logits;
  longest_step_ = std::max(longest_step_.load(), options_.clock->seconds() - begin);
  const auto vocabulary = static_cast<size_t>(sampled_vocab(model_));
  const auto draw_some = [&](int64_t begin, int64_t end) {
    int64_t row = 0;
    for (int64_t i = 0; i < end; ++i) {
      const auto index = static_cast<size_t>(i);
      const int64_t rows = batch.sequences[index].logit_rows;
      float* const first = rows > 0 ? logits.mutable_data_ptr<float>() + row * logits.size(1) : nullptr;
      row += rows;
      if (i < begin || rows == 0) continue;
      try {
        draw(parts[index], {first, rows, logits.size(1), vocabulary});
      } catch (...) {
        problems[index] = std::current_exception();
      }
    }
  };
  parallel_for(std::ssize(parts), 1, std::ref(draw_some));
  for (size_t i = 0; i < parts.size(); ++i) {
    if (problems[i] && parts[i].sequence->phase == Sequence::Phase::running) {
      fail_request(members_.at(parts[i].sequence.get()).request, as_error(problems[i]));
    }
  }
}

void Engine::draw(const StepPart& part, const Rows& rows) {
  const Member& member = members_.at(part.sequence.get());
  Choice& choice = *member.request->choices[member.choice];
  const auto row = [&](int64_t r) { return std::span(rows.first + r * rows.stride, rows.width); };
  const int64_t of_prompt = rows.count - (part.samples ? 1 : 0);
  const int64_t first = part.begin + part.count - rows.count - model_.model->virtual_tokens.count;
  for (int64_t r = 0; r < of_prompt; ++r) choice.add_prompt_row(row(r), first + r);
  if (!part.samples) return;
  if (member.request->request.max_tokens == 0)
    choice.finish(EndReason::length);
  else
    choice.next_token = choice.next(row(rows.count - 1));
}

void Engine::tell(const std::vector<StepPart>& parts) {
  const double now = options_.clock->seconds();
  int64_t generated = 0;
  for (const StepPart& part : parts) {
    if (!part.samples || !read(part) || part.sequence->phase != Sequence::Phase::running) continue;
    const Member member = members_.at(part.sequence.get());
    try {
      take_token(member, now);
      if (member.request->request.max_tokens != 0) ++generated;
    } catch (...) {
      fail_request(member.request, as_error(std::current_exception()));
    }
  }
  const std::lock_guard lock(mutex_);
  counts_.generated_tokens += generated;
}

void Engine::take_token(const Member& member, double now) {
  Running& request = *member.request;
  Sequence& s = *request.sequences[member.choice];
  Choice& choice = *request.choices[member.choice];
  if (request.first_token[member.choice] == 0) {
    request.first_token[member.choice] = now;
    choice.end().cached_tokens = std::max<int64_t>(0, s.cached_tokens - model_.model->virtual_tokens.count);
    if (request.request.prompt_logprobs) request.listener->on_prompt(static_cast<int64_t>(member.choice), choice.take_prompt());
  }
  if (request.request.max_tokens != 0) s.tokens.push_back(choice.next_token);
  if (!choice.ended() && std::ssize(s.tokens) >= s.room) choice.finish(EndReason::length);
  if (choice.ended())
    end_choice(member, choice.end().reason);
  else
    tell_piece(member);
}

void Engine::tell_piece(const Member& member) {
  Piece piece = member.request->choices[member.choice]->take_piece();
  if (!piece.text.empty() || !piece.tokens.empty()) member.request->listener->on_piece(static_cast<int64_t>(member.choice), std::move(piece));
}

void Engine::end_choice(const Member& member, EndReason reason) {
  Running& request = *member.request;
  Sequence& sequence = *request.sequences[member.choice];
  if (sequence.phase == Sequence::Phase::gone) return;
  scheduler_.remove(sequence);
  publish_counts();
  members_.erase(&sequence);
  Choice& choice = *request.choices[member.choice];
  choice.finish(reason);
  tell_piece(member);
  const double now = options_.clock->seconds();
  const double ran = request.first_ran[member.choice] > 0 ? request.first_ran[member.choice] : now;
  const double token = request.first_token[member.choice] > 0 ? request.first_token[member.choice] : now;
  ChoiceEnd& end = choice.end();
  end.reason = reason;
  end.queue_seconds = ran - request.arrived;
  end.prompt_seconds = token - ran;
  end.decode_seconds = now - token;
  {
    const std::lock_guard lock(mutex_);
    ++(reason == EndReason::stop ? counts_.ended_stop : reason == EndReason::length ? counts_.ended_length : counts_.ended_cancelled);
  }
  request.listener->on_end(static_cast<int64_t>(member.choice), end);
  if (--request.open == 0) requests_.erase(request.id);
}

void Engine::cancel_all(std::shared_ptr<Running> request) {
  for (size_t i = 0; i < request->choices.size(); ++i) end_choice({request, i}, EndReason::cancelled);
}

void Engine::fail_all(const std::vector<StepPart>& parts, const Error& error) {
  for (const StepPart& part : parts) {
    if (const auto found = members_.find(part.sequence.get()); found != members_.end()) fail_request(found->second.request, error);
  }
}

void Engine::fail_request(std::shared_ptr<Running> request, const Error& error) {
  if (std::exchange(request->open, 0) == 0) return;
  requests_.erase(request->id);
  for (const auto& sequence : request->sequences) {
    scheduler_.remove(*sequence);
    members_.erase(sequence.get());
  }
  publish_counts();
  {
    const std::lock_guard lock(mutex_);
    ++counts_.ended_error;
  }
  request->listener->on_error(error);
}

}  // namespace frugal::engine
