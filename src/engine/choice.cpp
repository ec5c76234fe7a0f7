#include "engine/choice.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/model_sampling.h"

namespace frugal::engine {
namespace {

uint64_t seed_of(const Request& request, int64_t index) {
  return request.sampling.seed < 0 ? resolved_seed(-1) : static_cast<uint64_t>(request.sampling.seed) + static_cast<uint64_t>(index);
}

// Sum of exp(x - top) in double: 50,000 terms in float would lose three digits.
double log_sum_exp(std::span<const float> logits) {
  const float top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - top);
  return top + std::log(sum);
}

}  // namespace

Choice::Choice(const nn::LoadedModel& model, const Request& request, int64_t index)
    : model_(model),
      request_(request),
      sampler_(request.sampling, sampled_vocab(model), seed_of(request, index)),
      decoder_(*model.tokenizer, !request.show_special),
      matcher_(request.stop) {
  if (request.grammar) grammar_.emplace(*request.grammar);
  grammar_waits_ = grammar_ && !request.grammar_after.empty();
  for (const int32_t id : request.prompt) sampler_.accept(id);
  if (request.prompt_logprobs) prompt_.push_back({request.prompt.front(), std::numeric_limits<double>::quiet_NaN(), {}});
  end_.prompt_tokens = std::ssize(request.prompt);
}

TokenInfo Choice::info(std::span<const float> logits, int32_t id) const {
  const double total = log_sum_exp(logits);
  TokenInfo info{id, logits[static_cast<size_t>(id)] - total, {}};
  const auto count = static_cast<size_t>(std::min<int64_t>(request_.top_logprobs, std::ssize(logits)));
  std::vector<int32_t> ids(logits.size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  // Ties in the order of ids, as argmax has them.
  const auto likelier = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count), ids.end(), likelier);
  for (size_t i = 0; i < count; ++i) info.top.emplace_back(ids[i], logits[static_cast<size_t>(ids[i])] - total);
  return info;
}

void Choice::add_prompt_row(std::span<const float> logits, int64_t position) {
  // Rows that come twice, after a preemption, say the same.
  if (position + 1 != std::ssize(prompt_) || position + 1 >= std::ssize(request_.prompt)) return;
  prompt_.push_back(info(logits, request_.prompt[static_cast<size_t>(position + 1)]));
}

std::vector<TokenInfo> Choice::take_prompt() { return std::exchange(prompt_, {}); }

int32_t Choice::next(std::span<float> logits) {
  require_finite(logits, model_);
  std::vector<float> raw;
  if (request_.top_logprobs >= 0) raw.assign(logits.begin(), logits.end());
  ban(logits);
  int32_t id = 0;
  try {
    id = sampler_.sample(logits);
  } catch (const Error&) {
    if (!grammar_) throw;
    fail(ErrorKind::invalid_input, "none of the tokens that the grammar allows is left: a bias bans them");
  }
  sampler_.accept(id);
  if (grammar_) follow_grammar(id);
  if (request_.top_logprobs >= 0) piece_.tokens.push_back(info(raw, id));
  accept(id);
  return id;
}

// What must not be drawn now.
void Choice::ban(std::span<float> logits) {
  constexpr float kBanned = -std::numeric_limits<float>::infinity();
  if (grammar_waits_ || (end_.generated_tokens < request_.min_tokens && !(grammar_ && grammar_->must_end()))) {
    for (const int32_t id : model_.end_ids) logits[static_cast<size_t>(id)] = kBanned;
    for (const int32_t id : request_.stop_ids) logits[static_cast<size_t>(id)] = kBanned;
  }
  if (!grammar_ || grammar_waits_) return;
  std::vector<uint32_t> allowed((logits.size() + 31) / 32);
  grammar_->allowed(allowed);
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(allowed[i / 32] >> (i % 32) & 1)) logits[i] = kBanned;
  }
}

void Choice::follow_grammar(int32_t id) {
  if (!grammar_waits_) {
    if (!grammar_->accept(id)) fail(ErrorKind::internal, "the grammar does not take token {} that it allowed", id);
    return;
  }
  waited_ += model_.tokenizer->piece(id);
  const size_t found = waited_.find(request_.grammar_after);
  if (found == std::string::npos) {
    waited_.erase(0, waited_.size() - std::min(waited_.size(), request_.grammar_after.size()));
    return;
  }
  grammar_waits_ = false;
  std::string rest = waited_.substr(found + request_.grammar_after.size());
  rest.erase(0, std::min(rest.find_first_not_of(" \t\r\n"), rest.size()));
  if (!rest.empty() && !grammar_->accept_bytes(rest)) {
    fail(ErrorKind::invalid_input, "the model began its answer, in one token with \"{}\", otherwise than the grammar allows",
         printable(request_.grammar_after));
  }
}

std::string Choice::text_of(int32_t id) {
  if (std::find(request_.shown.begin(), request_.shown.end(), id) == request_.shown.end()) return decoder_.push(id);
  return decoder_.flush() + std::string(model_.tokenizer->token_text(id));
}

void Choice::accept(int32_t id) {
  ++end_.generated_tokens;
  const bool listed = std::find(request_.stop_ids.begin(), request_.stop_ids.end(), id) != request_.stop_ids.end();
  if (listed || (!request_.ignore_end && std::binary_search(model_.end_ids.begin(), model_.end_ids.end(), id))) {
    if (listed) end_.stop_id = id;
    if (listed && request_.include_stop) piece_.text += matcher_.push(text_of(id));
    return finish(EndReason::stop);
  }
  piece_.text += matcher_.push(text_of(id));
  if (matcher_.stopped()) {
    end_.stop_text = matcher_.matched();
    if (request_.include_stop) piece_.text += end_.stop_text;
    return finish(EndReason::stop);
  }
  if (grammar_ && grammar_->finished()) return finish(EndReason::stop);
  if (end_.generated_tokens == request_.max_tokens) finish(EndReason::length);
}

Piece Choice::take_piece() { return std::exchange(piece_, {}); }

void Choice::finish(EndReason reason) {
  if (ended_) return;
  ended_ = true;
  end_.reason = reason;
  if (matcher_.stopped()) return;
  piece_.text += matcher_.push(decoder_.flush());
  if (!matcher_.stopped()) piece_.text += matcher_.flush();
}

}  // namespace frugal::engine
