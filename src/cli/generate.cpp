// frugal generate: one prompt, one answer.
#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "cli/context.h"
#include "cli/generation.h"
#include "cli/terminal.h"
#include "text/tokenizer.h"

namespace frugal::cli {
namespace {

std::string to_string(engine::FinishReason reason) {
  switch (reason) {
    case engine::FinishReason::stop: return "stop";
    case engine::FinishReason::length: return "length";
    case engine::FinishReason::interrupted: return "interrupted";
  }
  return "";
}

void run(const Context& context, const GenerationValues& values) {
  const std::string prompt = prompt_text(values);
  if (prompt.empty()) fail(ErrorKind::invalid_input, "give a prompt with -p or -f");
  const nn::LoadedModel loaded = load_for_generation(context, values);
  // A question through the chat template where the model has one, as llama-cli does; --raw continues the text.
  if (values.raw && values.conversation) fail(ErrorKind::invalid_input, "--conversation and --raw exclude each other");
  const bool has_template = loaded.chat_template || !loaded.chat_template_problem.empty();
  const bool chat = values.conversation || (has_template && !values.raw);
  Json messages = Json::array();
  if (const std::string system = system_text(values); !system.empty()) messages.push_back({{"role", "system"}, {"content", system}});
  messages.push_back({{"role", "user"}, {"content", prompt}});
  const std::vector<int32_t> ids = chat ? chat_prompt(loaded, values, messages) : loaded.tokenizer->encode(prompt);
  engine::Sampler sampler = sampler_of(loaded, values, engine::resolved_seed(context.seed));
  engine::Conversation conversation(loaded, cache_type(values.cache, values.exact));
  const engine::GenerateResult result = conversation.generate(ids, sampler, generate_options(values), [&](const std::string& text) {
    if (!context.json) print(text);
  });
  if (context.json) {
    print_json({{"text", result.text},
                {"ids", result.ids},
                {"finish_reason", to_string(result.reason)},
                {"prompt_tokens", result.prompt_tokens},
                {"completion_tokens", result.ids.size()},
                {"prompt_seconds", result.prompt_seconds},
                {"decode_seconds", result.decode_seconds}});
  } else {
    print("\n");
  }
  if (values.timings) print_note(timings_text(result));
  if (result.reason == engine::FinishReason::interrupted) throw Interrupted{};
}

}  // namespace

void add_generate(CLI::App& app, Context& context) {
  const auto values = std::make_shared<GenerationValues>();
  Verb verb = new_verb(app, context, "generate", "Answer one prompt", [&context, values] { run(context, *values); });
  add_generation_options(verb, *values);
  verb.text("-p,--prompt", values->prompt, "Prompt")
      .text("-f,--file", values->prompt_file, "Prompt from a file")
      .flag("--raw,--no-conversation", values->raw, "Continue the prompt as text, without the chat template (-no-cnv)")
      .flag("--conversation", values->conversation, "Through the chat template (-cnv): the default where the model has one, else an error");
}

}  // namespace frugal::cli
