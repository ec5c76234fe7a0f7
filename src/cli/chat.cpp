// frugal chat: a conversation. Ctrl-C stops the answer, twice leaves.
#include <histedit.h>
#include <unistd.h>

#include <iostream>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/progress.h"
#include "cli/context.h"
#include "cli/generation.h"
#include "cli/terminal.h"

namespace frugal::cli {
namespace {

constexpr const char* kHelp =
    "/exit leaves, /clear forgets the conversation, /regen answers again, /system TEXT sets the system message; a line that ends in \\ goes on\n";

// Lines from a person (editing and history through libedit) or from a pipe.
class LineReader {
 public:
  LineReader() : interactive_(::isatty(STDIN_FILENO) && ::isatty(STDOUT_FILENO)) {
    if (!interactive_) return;
    history_ = ::history_init();
    HistEvent event;
    ::history(history_, &event, H_SETSIZE, 1000);
    editor_ = ::el_init("frugal", stdin, stdout, stderr);
    ::el_set(editor_, EL_PROMPT, &LineReader::prompt);
    ::el_set(editor_, EL_EDITOR, "emacs");
    ::el_set(editor_, EL_HIST, ::history, history_);
    ::el_set(editor_, EL_SIGNAL, 0);
  }
  ~LineReader() {
    if (editor_) ::el_end(editor_);
    if (history_) ::history_end(history_);
  }
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  bool interactive() const { return interactive_; }
  // A message: one line, or several where each but the last ends in a backslash. nullopt at the end of the input, or at Ctrl-C
  // on an empty prompt.
  std::optional<std::string> next() {
    std::optional<std::string> message = next_line();
    while (message && message->ends_with('\\')) {
      message->back() = '\n';
      message->append(next_line().value_or(""));
    }
    return message;
  }

 private:
  std::optional<std::string> next_line() {
    std::string line;
    if (!interactive_) {
      if (!std::getline(std::cin, line)) return std::nullopt;
      return line;
    }
    int count = 0;
    const char* text = ::el_gets(editor_, &count);
    if (!text || count <= 0 || stop_requested()) return std::nullopt;
    HistEvent event;
    ::history(history_, &event, H_ENTER, text);
    line = text;
    while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
    return line;
  }
  static char* prompt(EditLine*) {
    static char text[] = "> ";
    return text;
  }
  bool interactive_;
  History* history_ = nullptr;
  EditLine* editor_ = nullptr;
};

class Chat {
 public:
  Chat(const Context& context, const GenerationValues& values)
      : context_(context),
        values_(values),
        loaded_(load_for_generation(context, values)),
        conversation_(loaded_, cache_type(values.cache, values.exact)),
        seed_(engine::resolved_seed(context.seed)) {
    set_system(system_text(values));
  }

  void run() {
    LineReader reader;
    if (reader.interactive()) print(fmt::format("{}\n{}", loaded_.name, kHelp));
    std::string first = prompt_text(values_);
    while (true) {
      std::optional<std::string> line = first.empty() ? reader.next() : std::optional(std::exchange(first, ""));
      if (!line || *line == "/exit" || *line == "/quit") return;
      if (line->empty()) continue;
      if (command(*line)) continue;
      messages_.push_back({{"role", "user"}, {"content", *line}});
      if (!answer()) messages_.erase(messages_.size() - 1);
      if (values_.single_turn) return;
    }
  }

 private:
  void set_system(const std::string& text) {
    messages_ = Json::array();
    system_ = text;
    if (!text.empty()) messages_.push_back({{"role", "system"}, {"content", text}});
  }

  bool command(const std::string& line) {
    if (line == "/clear") {
      set_system(system_);
    } else if (line.starts_with("/system ")) {
      set_system(line.substr(8));
    } else if (line == "/help") {
      print(kHelp);
    } else if (line == "/regen") {
      if (!messages_.empty() && messages_.back()["role"] == "assistant") {
        const Json before = messages_.back();
        messages_.erase(messages_.size() - 1);
        if (!answer()) messages_.push_back(before);
      }
    } else if (line.starts_with('/') && line.find(' ') == std::string::npos) {
      print_error(fmt::format("no command {}; {}", printable(line), kHelp));
    } else {
      return false;
    }
    return true;
  }

  // False: there is none (stopped before its first word; the context is full, the line is not text ..., which is said); the
  // conversation goes on.
  bool answer() {
    try {
      return generate();
    } catch (const Error& error) {
      if (!values_.single_turn && (error.kind() == ErrorKind::invalid_input || error.kind() == ErrorKind::unsupported)) {
        print_error(error.what());
        return false;
      }
      throw;
    }
  }

  bool generate() {
    engine::Sampler sampler = sampler_of(loaded_, values_, seed_ + turns_++);
    const engine::GenerateResult result =
        conversation_.generate(chat_prompt(loaded_, values_, messages_), sampler, generate_options(values_), [&](const std::string& text) {
          if (!context_.json) print(text);
        });
    const bool any = result.reason != engine::FinishReason::interrupted || !result.text.empty();
    if (any) messages_.push_back({{"role", "assistant"}, {"content", result.text}});
    if (context_.json) {
      print(Json({{"role", "assistant"}, {"content", result.text}}).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
    } else {
      print("\n");
    }
    if (values_.timings) print_note(timings_text(result));
    clear_stop();  // Ctrl-C ended the answer, not the conversation
    return any;
  }

  const Context& context_;
  const GenerationValues& values_;
  nn::LoadedModel loaded_;
  engine::Conversation conversation_;
  Json messages_ = Json::array();
  std::string system_;
  uint64_t seed_, turns_ = 0;
};

}  // namespace

void add_chat(CLI::App& app, Context& context) {
  const auto values = std::make_shared<GenerationValues>();
  Verb verb = new_verb(app, context, "chat", "Talk with a model", [&context, values] { Chat(context, *values).run(); });
  add_generation_options(verb, *values);
  verb.text("-p,--prompt", values->prompt, "First message")
      .text("-f,--file", values->prompt_file, "First message from a file")
      .flag("--single-turn", values->single_turn, "Leave after one answer (-st)");
}

}  // namespace frugal::cli
