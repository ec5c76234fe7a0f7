#include "distill/teacher_rows.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "data/row_reader.h"
#include "text/chat_template.h"
#include "text/chat_tokens.h"
#include "text/tokenizer.h"

namespace frugal::distill {
namespace {

class Writer {
 public:
  Writer(const nn::LoadedModel& teacher, const TeacherRowsOptions& options, const std::string& path) : teacher_(teacher), options_(options), file_(path) {
    if (!teacher.tokenizer) fail(ErrorKind::invalid_input, "{}: the checkpoint has no tokenizer", teacher.name);
    if (!teacher.chat_template) fail(ErrorKind::invalid_input, "{}: has no chat template to answer with: {}", teacher.name, teacher.chat_template_problem);
  }

  void read(const data::Source& source) {
    const data::DataFile file(source.path);
    const std::unique_ptr<data::RowReader> reader = data::open_rows(file, source.kind, source.fields);
    if (!reader) fail(ErrorKind::invalid_input, "{}: is a text: a teacher answers rows of conversations", source.path);
    Progress progress("answers to " + std::filesystem::path(source.path).filename().string(), static_cast<int64_t>(file.size()));
    data::RowKind kind = source.kind;
    size_t before = 0;
    for (auto rows = reader->next(); !rows.empty(); rows = reader->next()) {
      for (const data::RawRow& raw : rows) {
        const std::string where = fmt::format("{}:{}", source.path, raw.line);
        if (!raw.problem.empty()) fail(ErrorKind::invalid_input, "{}: {}", where, raw.problem);
        const Json value = raw.value ? *raw.value : parse_json(raw.text, where);
        if (kind == data::RowKind::automatic) kind = data::kind_of(value, source.fields, where);
        ask(data::read_row(value, kind, source.fields, where), where);
      }
      progress.step(static_cast<int64_t>(reader->position() - before));
      before = reader->position();
    }
    answer();
    file.require_unchanged();
  }

  TeacherRowsReport commit() {
    if (report_.rows == 0) fail(ErrorKind::invalid_input, "no row has a question that the teacher can answer");
    file_.commit();
    return report_;
  }

 private:
  struct Question {
    Json row;
    std::vector<int32_t> tokens;
  };

  void ask(const data::Row& row, const std::string& where) {
    const auto* conversation = std::get_if<data::Conversation>(&row);
    if (!conversation) fail(ErrorKind::invalid_input, "{}: is no conversation: there is nothing that a teacher could answer", where);
    Json messages = conversation->messages;
    for (size_t i = messages.size(); i-- > 0;) {
      if (messages[i]["role"] != "assistant") continue;
      messages.erase(messages.begin() + static_cast<std::ptrdiff_t>(i), messages.end());
      break;
    }
    if (messages.empty()) fail(ErrorKind::invalid_input, "{}: has no message before the answer", where);
    text::RenderOptions rendering;
    rendering.tools = conversation->tools;
    rendering.add_generation_prompt = true;
    rendering.bos_token = teacher_.bos_text;
    rendering.eos_token = teacher_.eos_text;
    rendering.clock = options_.clock;
    Question question{{{"messages", messages}}, text::encode_segments(*teacher_.tokenizer, teacher_.chat_template->render(messages, rendering))};
    if (!conversation->tools.is_null()) question.row["tools"] = conversation->tools;
    if (question.tokens.empty() || std::ssize(question.tokens) >= options_.answers.longest) {
      ++report_.left_out;
      return;
    }
    questions_.push_back(std::move(question));
    if (std::ssize(questions_) >= options_.batch) answer();
  }

  void answer() {
    std::vector<std::span<const int32_t>> prompts;
    for (const Question& question : questions_) prompts.emplace_back(question.tokens);
    train::ContinuationOptions sampling = options_.answers;
    sampling.seed += report_.rows;
    auto answers = train::continuations(*teacher_.model, prompts, sampling);
    for (size_t i = 0; i < questions_.size(); ++i) {
      const auto& ends = options_.answers.end_ids;
      const bool ended = !answers[i].empty() && std::find(ends.begin(), ends.end(), answers[i].back()) != ends.end();
      if (ended) answers[i].pop_back();
      report_.cut += !ended;
      Json& row = questions_[i].row;
      row["messages"].push_back({{"role", "assistant"}, {"content", teacher_.tokenizer->decode(answers[i], /*skip_special=*/true)}});
      file_.write(row.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
      ++report_.rows;
    }
    questions_.clear();
  }

  const nn::LoadedModel& teacher_;
  const TeacherRowsOptions& options_;
  AtomicFile file_;
  std::vector<Question> questions_;
  TeacherRowsReport report_;
};

}  // namespace

TeacherRowsReport write_teacher_rows(const nn::LoadedModel& teacher, const std::vector<data::Source>& sources, const TeacherRowsOptions& options,
                                     const std::string& path) {
  Writer writer(teacher, options, path);
  for (const data::Source& source : sources) writer.read(source);
  return writer.commit();
}

}  // namespace frugal::distill
