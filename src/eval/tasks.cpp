#include "eval/tasks.h"

#include <ATen/ATen.h>

#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/progress.h"
#include "text/tokenizer.h"

namespace frugal::eval {
namespace {

constexpr size_t kMaxTaskBytes = size_t{256} << 20;
constexpr size_t kMaxLineBytes = size_t{16} << 20;

struct Question {
  std::string text;
  std::vector<std::string> choices;
  size_t answer = 0;
};

Question parse_question(std::string_view line, const std::string& where) {
  const Json value = parse_json(line, where, {kMaxLineBytes, 16});
  const JsonObject object(value, where);
  Question question;
  question.text = object.has("question") ? object.text("question") : object.text("query");
  question.choices = object.texts("choices");
  if (question.choices.size() < 2 || question.choices.size() > 64) object.fail_at("choices", "must have 2..64 items");
  question.answer = static_cast<size_t>(object.integer(object.has("answer") ? "answer" : "gold", 0, static_cast<int64_t>(question.choices.size()) - 1));
  return question;
}

std::vector<Question> read_questions(const std::string& path) {
  const std::string text = read_text_file(path, kMaxTaskBytes);
  std::vector<Question> questions;
  size_t number = 0;
  for (size_t begin = 0; begin < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) questions.push_back(parse_question(line, fmt::format("{}:{}", path, number + 1)));
    begin = end + 1;
  }
  if (questions.empty()) fail(ErrorKind::invalid_input, "{}: no questions", path);
  return questions;
}

// ln p(choice | question).
double score(const nn::LoadedModel& loaded, const std::string& question, const std::string& choice) {
  const std::vector<int32_t> context = loaded.tokenizer->encode(question);
  const std::vector<int32_t> whole = loaded.tokenizer->encode(question + " " + choice);
  // A merge across the border makes the last context token part of the continuation.
  size_t shared = 0;
  while (shared < std::min(context.size(), whole.size()) && context[shared] == whole[shared]) ++shared;
  if (shared == 0 || shared == whole.size()) fail(ErrorKind::invalid_input, "a question or choice has no tokens of its own: \"{}\"", printable(choice));
  const int64_t limit = loaded.model->spec.context_length;
  if (limit > 0 && static_cast<int64_t>(whole.size()) > limit) {
    fail(ErrorKind::invalid_input, "a question of {} tokens is longer than the model's context of {}", whole.size(), limit);
  }
  const auto count = static_cast<int64_t>(whole.size() - shared);
  const nn::ForwardResult result = loaded.model->forward(nn::Batch::single(whole, nullptr), {nn::ForwardOptions::Logits::none});
  const at::Tensor rows = result.hidden.narrow(0, static_cast<int64_t>(shared) - 1, count);
  const at::Tensor targets = at::tensor(at::ArrayRef<int32_t>(whole), at::kInt).narrow(0, static_cast<int64_t>(shared), count).to(at::kLong);
  return at::log_softmax(loaded.model->logits(rows), -1).gather(1, targets.unsqueeze(1)).sum().item<double>();
}

}  // namespace

TaskResult evaluate_task(const nn::LoadedModel& model, const std::string& path) {
  const c10::InferenceMode inference;
  if (!model.tokenizer) fail(ErrorKind::invalid_input, "{}: the checkpoint has no tokenizer", model.name);
  const std::vector<Question> questions = read_questions(path);
  TaskResult result;
  result.name = std::filesystem::path(path).stem().string();
  Progress progress(result.name, static_cast<int64_t>(questions.size()));
  int64_t right = 0, right_norm = 0;
  for (const Question& question : questions) {
    size_t best = 0, best_norm = 0;
    std::vector<double> scores, normed;
    for (const std::string& choice : question.choices) {
      scores.push_back(score(model, question.text, choice));
      normed.push_back(scores.back() / static_cast<double>(std::max<size_t>(1, choice.size())));
      if (scores.back() > scores[best]) best = scores.size() - 1;
      if (normed.back() > normed[best_norm]) best_norm = normed.size() - 1;
    }
    right += best == question.answer;
    right_norm += best_norm == question.answer;
    progress.step();
  }
  result.count = static_cast<int64_t>(questions.size());
  result.accuracy = static_cast<double>(right) / static_cast<double>(result.count);
  result.accuracy_norm = static_cast<double>(right_norm) / static_cast<double>(result.count);
  result.standard_error = std::sqrt(result.accuracy * (1 - result.accuracy) / static_cast<double>(std::max<int64_t>(1, result.count - 1)));
  return result;
}

}  // namespace frugal::eval
