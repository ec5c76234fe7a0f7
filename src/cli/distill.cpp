// frugal distill: a student learns from a teacher, from its distributions or from its answers.
#include "base/error.h"
#include "base/method_choice.h"
#include "chain/chain.h"
#include "cli/context.h"
#include "cli/resources.h"
#include "cli/terminal.h"
#include "cli/tuning.h"
#include "distill/distillation.h"
#include "distill/teacher_rows.h"
#include "text/tokenizer.h"
#include "train/checkpoint.h"
#include "train/text_model.h"

namespace frugal::cli {
namespace {

struct DistillValues {
  std::string student, method = "kd-forward";
  std::vector<std::string> teachers;
  bool pretraining = false;
  TrainingValues training;
};

// White box: the ids of one are the other's.
void require_same_tokens(const nn::LoadedModel& student, const nn::LoadedModel& teacher) {
  if (!student.tokenizer || !teacher.tokenizer)
    fail(ErrorKind::invalid_input, "{}: the checkpoint has no tokenizer", (student.tokenizer ? teacher : student).name);
  const int32_t size = student.tokenizer->vocab_size(), theirs = teacher.tokenizer->vocab_size();
  if (size != theirs) {
    fail(ErrorKind::invalid_input, "the teacher {} has {} tokens, the student {} {}: their distributions cannot be compared; seq-kd needs the text only",
         teacher.name, theirs, student.name, size);
  }
  for (int32_t id = 0; id < size; ++id) {
    if (student.tokenizer->piece(id) != teacher.tokenizer->piece(id)) {
      fail(ErrorKind::invalid_input,
           "token {} is {} to the teacher {}, {} to the student {}: their distributions cannot be compared; seq-kd needs the text only", id,
           printable(teacher.tokenizer->piece(id)), teacher.name, printable(student.tokenizer->piece(id)), student.name);
    }
  }
}

// What is asked for, checked before anything is loaded.
struct Distilling {
  std::string student;
  const distill::DistillRow& row;
  Options options;
  distill::DistillationOptions method;
  WayToTune way;
};

Distilling checked(const DistillValues& values, const TrainingPlan& plan) {
  const auto choice = choose_method(distill::distill_table(), values.method);
  const distill::DistillRow& row = *choice.row;
  Distilling d{values.student.empty() ? plan.base_model : values.student, row, choice.options, row.function(choice.options), way_to_tune(plan.method)};
  if (d.student.empty()) fail(ErrorKind::invalid_input, "no student: --student names one, or base_model in --config");
  if (values.teachers.empty()) fail(ErrorKind::invalid_input, "--teacher names the model to learn from");
  if (d.method.several_teachers ? values.teachers.size() < 2 : values.teachers.size() > 1)
    fail(ErrorKind::invalid_input, "{} learns from {}: --teacher was given {} times", row.id, d.method.several_teachers ? "several teachers" : "one teacher",
         values.teachers.size());
  if (plan.run.text("rl") != "none") fail(ErrorKind::invalid_input, "rl: frugal tune learns from preferences");
  if (!d.method.text_only && optimizer_of(plan).row->id == "sophia")
    fail(ErrorKind::unsupported, "optimizer: a distillation has no labels that sophia could draw: choose another optimizer");
  if (!d.method.text_only && optimizer_of(plan).row->id == "lomo")
    fail(ErrorKind::unsupported,
         "optimizer: a distillation goes backward through the head in parts, which lomo would take for whole gradients: choose another optimizer");
  if (!d.method.text_only && optimizer_of(plan).row->id == "mezo")
    fail(ErrorKind::unsupported, "optimizer: a distillation is learned by its gradient, which mezo does without: choose another optimizer");
  if (d.method.text_only && values.pretraining) fail(ErrorKind::invalid_input, "--pretraining: a teacher answers rows of conversations, not texts");
  if (d.method.adaptive && plan.run.integer("eval_steps") == 0) {
    fail(ErrorKind::invalid_input, "{}: the share of what the student writes follows the held-out loss: give eval_steps, and eval_data or val_set_size",
         row.id);
  }
  return d;
}

nn::LoadedModel load_teacher(const Context& context, const TrainingPlan& plan, const std::string& path) {
  nn::LoadedModel teacher = load_model(context, path);
  teacher.model->set_execution(plan.run.boolean("load_in_4bit") ? nn::Execution::stored : nn::Execution::expanded);
  return teacher;
}

// The plan with the teacher's answers as its data. They are kept in the run's folder: one that goes on learns the same.
TrainingPlan with_answers(const Context& context, const TrainingPlan& plan, const Distilling& d, const nn::LoadedModel& teacher,
                          const train::RunFolder& folder) {
  const std::string path = folder.path() + "/teacher.jsonl";
  if (!folder.resumes() || !train::has_checkpoints(folder.path())) {
    distill::TeacherRowsOptions options;
    options.answers = {d.method.max_new_tokens, plan.run.integer("sequence_len"), d.method.sampling_temperature, teacher.end_ids, context.method_seed()};
    options.batch = plan.run.integer("micro_batch_size");
    options.clock = &train::training_clock();
    const distill::TeacherRowsReport report = distill::write_teacher_rows(teacher, plan.data, options, path);
    std::string note = fmt::format("{}: {} answers of {}", path, report.rows, teacher.name);
    if (report.cut > 0) note += fmt::format(", {} cut before their end (max_new_tokens)", report.cut);
    if (report.left_out > 0) note += fmt::format("; {} questions of {} tokens or more were left out", report.left_out, options.answers.longest);
    print_note(note);
  }
  TrainingPlan answered = plan;
  data::Source source = plan.data.front();
  source.path = path;
  source.kind = data::RowKind::chat;
  source.fields = {};
  answered.data = {source};
  return answered;
}

void run(Context& context, DistillValues& values) {
  const TrainingPlan plan = training_plan(values.training, values.pretraining);
  const Distilling d = checked(values, plan);
  const Ranks ranks(context);
  if (ranks.are_several() && d.method.text_only) {
    fail(ErrorKind::unsupported, "{}: one process asks the teacher; then frugal tune learns its answers (teacher.jsonl) with several", d.row.id);
  }
  if (ranks.are_several() && d.method.adaptive) {
    fail(ErrorKind::unsupported, "{}: one process keeps what the student wrote; gkd learns with several", d.row.id);
  }
  nn::LoadedModel student = load_model(context, d.student);
  std::vector<nn::LoadedModel> teachers;
  std::string hashes;
  for (const std::string& path : values.teachers) {
    teachers.push_back(load_teacher(context, plan, path));
    if (!d.method.text_only) require_same_tokens(student, teachers.back());
    hashes += (hashes.empty() ? "" : " ") + weights_hash(teachers.back());
  }
  if (values.training.show > 0) return show_examples(student, load_training_data(context, plan, student, values.pretraining).train, values.training.show);
  const train::RunFolder folder(plan.output, existing_of(values.training), ranks.leads());
  const TrainingPlan learned = d.method.text_only ? with_answers(context, plan, d, teachers.front(), folder) : plan;
  const TrainingData data = load_training_data(context, learned, student, values.pretraining);
  ObjectiveMaker objective;
  if (d.method.text_only) {
    teachers.clear();  // what it had to say is written down
  } else {
    objective = [&](train::LanguageModelingOptions options) -> std::unique_ptr<train::Objective> {
      std::vector<std::shared_ptr<const nn::Model>> models;
      for (const nn::LoadedModel& teacher : teachers) models.push_back(teacher.model);
      return std::make_unique<distill::Distillation>(*student.model, std::move(models), data.train, data.held_out ? &*data.held_out : nullptr,
                                                     std::move(options), d.method, student.end_ids);
    };
  }
  tune_model({.ranks = ranks,
              .context = context,
              .values = values.training,
              .plan = learned,
              .way = d.way,
              .base = d.student,
              .model = student,
              .data = data,
              .objective = objective,
              .fingerprint = {{"distillation", chain::canonical_text(d.row.id, d.options)}, {"teachers", hashes}}},
             folder);
}

}  // namespace

void add_distill(CLI::App& app, Context& context) {
  const auto values = std::make_shared<DistillValues>();
  values->training.default_method = kWholeModel;
  Verb verb =
      new_verb(app, context, "distill", "Train a student to say what a teacher says", [&context, values] { stoppable([&] { run(context, *values); }); });
  verb.text("--student,-m,--model", values->student, "Path or hub name of the model that learns")
      .texts("--teacher", values->teachers, "Path or hub name of the model that it learns from; repeatable where the method takes several")
      .text("--method", values->method, fmt::format("How it learns, id or id:key=value,...: {} [kd-forward]", ids_of(distill::distill_table())))
      .text("--adapter", values->training.method, fmt::format("What of the student is trained: {} [full]", ways_to_tune()))
      .flag("--pretraining", values->pretraining, "The data are texts, cut into sequences of one length, as frugal train reads them");
  add_training_flags(verb, values->training);
}

}  // namespace frugal::cli
