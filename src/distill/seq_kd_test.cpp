// The rows that a teacher answers: what it is asked, what becomes of its words, and what is refused.
#include <gmock/gmock.h>

#include "base/error.h"
#include "base/file.h"
#include "distill/distill_table.h"
#include "distill/teacher_rows.h"
#include "models/test_tools.h"
#include "oracle.h"
#include "text/chat_template.h"
#include "text/chat_tokens.h"
#include "text/tokenizer.h"

namespace frugal::distill {
namespace {

using ::testing::HasSubstr;

class SeqKd : public ::testing::Test {
 protected:
  TeacherRowsReport answer(const std::string& rows, TeacherRowsOptions options = {}, const std::string& name = "rows.jsonl") {
    write_text_file(folder_ / name, rows);
    return write_teacher_rows(teacher_, {{.path = folder_ / name}}, options, path_);
  }
  std::string error_of(const std::string& rows, const std::string& name = "rows.jsonl") {
    try {
      answer(rows, {}, name);
    } catch (const Error& error) {
      EXPECT_FALSE(std::filesystem::exists(path_)) << "nothing is half-written";
      return fmt::format("{}: {}", to_string(error.kind()), error.what());
    }
    return "";
  }
  std::vector<Json> written() const {
    std::vector<Json> rows;
    std::istringstream lines(read_text_file(path_, 1 << 20));
    for (std::string line; std::getline(lines, line);) rows.push_back(parse_json(line, "line"));
    return rows;
  }

  testing::TemporaryFolder folder_;
  std::string path_ = folder_ / "teacher.jsonl";
  nn::LoadedModel teacher_ = models::Loader().load(models::TinyModels::get().path("llama"));
};

TEST_F(SeqKd, AsksWhatCameBeforeTheLastAnswer) {
  const DistillationOptions method = distill_table().at("seq-kd").function(Options("seq-kd", distill_table().at("seq-kd").options, {}));
  EXPECT_TRUE(method.text_only);
  EXPECT_EQ(method.sampling_temperature, 0);
  const std::string rows =
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]})"
      "\n"
      R"({"messages": [{"role": "user", "content": "nobody has answered"}]})"
      "\n";
  TeacherRowsOptions options;
  options.answers = {.max_new_tokens = 5, .temperature = 0};
  for (const int64_t batch : {1, 8}) {
    options.batch = batch;
    const TeacherRowsReport report = answer(rows, options);
    EXPECT_EQ(report.rows, 2u);
    EXPECT_EQ(report.cut, 2u) << "no id ends an answer here";
    const std::vector<Json> out = written();
    ASSERT_EQ(out.size(), 2u);
    ASSERT_EQ(out[0]["messages"].size(), 4u);
    EXPECT_EQ(out[0]["messages"][1]["content"], "b") << "earlier answers are part of the question";
    ASSERT_EQ(out[1]["messages"].size(), 2u);
    for (const Json& row : out) {
      Json question = row["messages"];
      question.erase(question.size() - 1);
      text::RenderOptions rendering;
      rendering.add_generation_prompt = true;
      rendering.bos_token = teacher_.bos_text;
      rendering.eos_token = teacher_.eos_text;
      const std::vector<int32_t> prompt = text::encode_segments(*teacher_.tokenizer, teacher_.chat_template->render(question, rendering));
      const std::vector<std::span<const int32_t>> prompts = {prompt};
      const Json said = teacher_.tokenizer->decode(train::continuations(*teacher_.model, prompts, options.answers)[0], true);
      // What is not UTF-8 is written as U+FFFD.
      EXPECT_EQ(row["messages"].back()["content"], parse_json(said.dump(-1, ' ', false, Json::error_handler_t::replace), "said"));
    }
    std::filesystem::remove(path_);
  }
}

TEST_F(SeqKd, OtherKindsAreConversationsAndLongQuestionsAreLeftOut) {
  TeacherRowsOptions options;
  options.answers = {.max_new_tokens = 2, .longest = 60};
  const std::string rows =
      fmt::format("{}\n{}\n", R"({"instruction": "say", "input": "", "output": "x"})", Json({{"instruction", std::string(4000, 'w')}, {"output", "x"}}).dump());
  const TeacherRowsReport report = answer(rows, options);
  EXPECT_EQ(report.rows, 1u);
  EXPECT_EQ(report.left_out, 1u);
  EXPECT_EQ(written().at(0)["messages"].back()["role"], "assistant");
}

TEST_F(SeqKd, WhatAsksNothingIsRefusedWithItsPlace) {
  EXPECT_THAT(error_of(R"({"text": "a text"})"), HasSubstr("rows.jsonl:1: is no conversation"));
  EXPECT_THAT(error_of(R"({"prompt": "a", "chosen": "b", "rejected": "c"})"), HasSubstr("is no conversation"));
  EXPECT_THAT(error_of("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n{\"messages\": 3}"), HasSubstr("rows.jsonl:2"));
  EXPECT_THAT(error_of("a text", "rows.txt"), HasSubstr("rows.txt: is a text"));
  EXPECT_THAT(error_of(""), HasSubstr("no row has a question"));
  teacher_.chat_template = nullptr;
  teacher_.chat_template_problem = "it has none";
  EXPECT_THAT(error_of(R"({"messages": [{"role": "user", "content": "a"}]})"), HasSubstr("has no chat template to answer with: it has none"));
}

}  // namespace
}  // namespace frugal::distill
