#include "cli/generation.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "cli/resources.h"
#include "engine/model_sampling.h"
#include "text/chat_template.h"
#include "text/chat_tokens.h"

namespace frugal::cli {
namespace {

constexpr size_t kMaxPromptBytes = size_t{64} << 20;

// \n, \t, \r, \\, \", \' as llama.cpp's --escape.
std::string unescaped(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out += text[i];
      continue;
    }
    switch (text[++i]) {
      case 'n': out += '\n'; break;
      case 't': out += '\t'; break;
      case 'r': out += '\r'; break;
      case '\\':
      case '"':
      case '\'': out += text[i]; break;
      default: out += '\\'; out += text[i];
    }
  }
  return out;
}

}  // namespace

void add_generation_options(Verb& verb, GenerationValues& values) {
  verb.text("model,-m,--model,--hf-repo", values.model, "Path or hub name (-hf)")
      .required()
      .text("--system-prompt", values.system, "System message (-sys)")
      .text("--system-prompt-file", values.system_file, "System message from a file (-sysf)")
      .text("--chat-template-kwargs", values.template_arguments, "JSON object of variables for the template")
      .integer("-n,--predict,--n-predict", values.predict, -1, int64_t{1} << 30, "Most tokens to generate (-1: no limit)")
      .integer("-c,--ctx-size", values.context, 0, int64_t{1} << 30, "Context in tokens (0: the model's)")
      .integer("-b,--batch-size", values.batch, 1, int64_t{1} << 20, "Prompt tokens of one forward, at most")
      .integer("--ubatch-size", values.ubatch, 1, int64_t{1} << 20, "The same (-ub); the smaller one counts")
      .texts("-r,--reverse-prompt", values.reverse_prompts, "Stop string; repeatable")
      .texts("--stop", values.stop, "Stop string; repeatable")
      .texts("--dry-sequence-breaker", values.dry_breakers, "Token that no repetition of DRY crosses; repeatable; none: no such token")
      .flag("--exact", values.exact, "Expand the weights to float")
      .flag("--special", values.special, "Show special tokens (-sp)")
      .flag("-e,--escape", values.escape, "\\n, \\t in prompts are line breaks and tabs")
      .flag("--timings", values.timings, "Rates on stderr at the end");
  for (const OptionSpec& option : engine::sampling_options()) {
    if (option.name == "seed") continue;  // -s/--seed is an option of every verb
    // Given again, the last one counts, but biases add up.
    const auto keep = [&values, name = option.name](const std::string& text) {
      const auto same = std::find_if(values.sampling.begin(), values.sampling.end(), [&](const auto& pair) { return pair.first == name; });
      if (same == values.sampling.end())
        values.sampling.emplace_back(name, text);
      else
        same->second = name == "logit-bias" ? same->second + "," + text : text;
    };
    std::string names = "--" + option.name;
    if (option.name == "logit-bias") names = "-l," + names;
    if (option.type == OptionType::boolean) {
      verb.flag_each(
          names, [keep] { keep("true"); }, option.help);
    } else {
      verb.each(names, keep, option.fallback.empty() ? option.help : fmt::format("{} (default {})", option.help, option.fallback));
    }
  }
  add_adapter_options(verb, values.adapters);
  add_cache_options(verb, values.cache);
  add_template_options(verb, values.chat_template);
}

void add_template_options(Verb& verb, TemplateValues& values) {
  verb.text("--chat-template", values.text, "Chat template (Jinja) in place of the model's").text("--chat-template-file", values.file, "The same from a file");
}

void replace_template(const TemplateValues& values, nn::LoadedModel& model) {
  if (!values.text.empty() && !values.file.empty()) fail(ErrorKind::invalid_input, "give either --chat-template or --chat-template-file");
  if (!values.file.empty()) {
    model.chat_template = std::make_shared<text::ChatTemplate>(read_text_file(values.file, kMaxPromptBytes), values.file);
  } else if (!values.text.empty()) {
    if (values.text.find("{%") == std::string::npos && values.text.find("{{") == std::string::npos)
      fail(ErrorKind::invalid_input, "--chat-template takes the template itself, in Jinja; \"{}\" is none", printable(values.text, 60));
    model.chat_template = std::make_shared<text::ChatTemplate>(values.text, "--chat-template");
  }
}

nn::LoadedModel load_for_generation(const Context& context, const GenerationValues& values) {
  const nn::Execution execution = values.exact ? nn::Execution::expanded : nn::Execution::packed;
  nn::LoadedModel loaded = load_model(context, values.model, execution);
  attach_adapters(values.adapters, loaded, execution);
  if (!loaded.tokenizer) fail(ErrorKind::invalid_input, "{}: the checkpoint has no tokenizer", loaded.name);
  if (values.context > loaded.model->spec.context_length) {
    log_warning("a context of {} tokens is more than the {} that the model was trained with", values.context, loaded.model->spec.context_length);
  }
  replace_template(values.chat_template, loaded);
  return loaded;
}

engine::Sampler sampler_of(const nn::LoadedModel& loaded, const GenerationValues& values, uint64_t seed) {
  const int64_t vocab = engine::sampled_vocab(loaded);
  RawOptions raw = values.sampling;
  const auto given = [&](const std::string& name) { return std::any_of(raw.begin(), raw.end(), [&](const auto& pair) { return pair.first == name; }); };
  for (const auto& option : engine::sampling_defaults(loaded)) {
    if (!given(option.first)) raw.push_back(option);
  }
  engine::SamplingParams params = engine::sampling_params(Options("sampling", engine::sampling_options(), raw));
  if (params.ignore_eos) {
    for (const int32_t id : loaded.end_ids) {
      if (id < vocab) params.logit_bias.emplace_back(id, -std::numeric_limits<float>::infinity());
    }
  }
  // As llama.cpp: given ones replace the four of its own, "none" means none.
  for (const std::string& breaker : values.dry_breakers.empty() ? std::vector<std::string>{"\n", ":", "\"", "*"} : values.dry_breakers) {
    if (breaker == "none") continue;
    const std::vector<int32_t> ids = loaded.tokenizer->encode(breaker, {.add_special = false});
    if (ids.size() != 1 && !values.dry_breakers.empty())
      fail(ErrorKind::unsupported, "--dry-sequence-breaker \"{}\" is {} tokens, one is needed", printable(breaker), ids.size());
    if (ids.size() == 1) params.dry_breakers.push_back(ids.front());
  }
  return engine::Sampler(std::move(params), vocab, seed);
}

void add_cache_options(Verb& verb, CacheValues& values) {
  const std::vector<std::string> types = {"auto", "f32", "f16", "int8", "q8_0"};
  verb.choice("--cache-type-k", values.keys, types, "What cached keys are rounded to (-ctk; auto: f16, with --exact f32; q8_0 is int8)")
      .choice("--cache-type-v", values.values, types, "The same for values (-ctv): as the keys");
}

nn::CacheType cache_type(const CacheValues& given, bool exact) {
  const auto type_of = [](const std::string& name) -> std::optional<nn::CacheType> {
    if (name == "auto") return std::nullopt;
    return name == "f32" ? nn::CacheType::f32 : name == "f16" ? nn::CacheType::f16 : nn::CacheType::int8;
  };
  const std::optional<nn::CacheType> keys = type_of(given.keys), values = type_of(given.values);
  if (keys && values && keys != values) {
    fail(ErrorKind::unsupported, "--cache-type-k {} with --cache-type-v {}: keys and values have one type", given.keys, given.values);
  }
  return keys.value_or(values.value_or(exact ? nn::CacheType::f32 : nn::CacheType::f16));
}

engine::GenerateOptions generate_options(const GenerationValues& values) {
  engine::GenerateOptions options;
  options.max_tokens = values.predict;
  options.stop = values.stop;
  options.stop.insert(options.stop.end(), values.reverse_prompts.begin(), values.reverse_prompts.end());
  options.show_special = values.special;
  options.context = values.context;
  options.batch = std::min(values.batch, values.ubatch);
  return options;
}

std::vector<int32_t> chat_prompt(const nn::LoadedModel& loaded, const GenerationValues& values, const Json& messages) {
  if (!loaded.chat_template && !loaded.chat_template_problem.empty()) {
    fail(ErrorKind::unsupported, "the model's chat template cannot be used: {} (--chat-template gives another, --raw uses the text as it is)",
         loaded.chat_template_problem);
  }
  if (!loaded.chat_template) {
    fail(ErrorKind::invalid_input, "{}: the model has no chat template; give one with --chat-template-file, or use --raw", loaded.name);
  }
  text::RenderOptions options;
  options.add_generation_prompt = true;
  options.bos_token = loaded.bos_text;
  options.eos_token = loaded.eos_text;
  if (!values.template_arguments.empty()) options.extra = parse_json(values.template_arguments, "--chat-template-kwargs");
  return text::encode_segments(*loaded.tokenizer, loaded.chat_template->render(messages, options));
}

std::string prompt_text(const GenerationValues& values) {
  if (!values.prompt.empty() && !values.prompt_file.empty()) fail(ErrorKind::invalid_input, "give either --prompt or --file");
  const std::string text = values.prompt_file.empty() ? values.prompt : read_text_file(values.prompt_file, kMaxPromptBytes);
  return values.escape ? unescaped(text) : text;
}

std::string system_text(const GenerationValues& values) {
  const std::string text = values.system_file.empty() ? values.system : read_text_file(values.system_file, kMaxPromptBytes);
  return values.escape ? unescaped(text) : text;
}

std::string timings_text(const engine::GenerateResult& result) {
  const auto rate = [](int64_t count, double seconds) { return seconds > 0 ? static_cast<double>(count) / seconds : 0; };
  const auto generated = static_cast<int64_t>(result.ids.size());
  return fmt::format("prompt: {} tokens ({} reused), {:.1f} t/s; generated: {} tokens, {:.1f} t/s", result.prompt_tokens, result.reused_tokens,
                     rate(result.prompt_tokens - result.reused_tokens, result.prompt_seconds), generated, rate(generated, result.decode_seconds));
}

}  // namespace frugal::cli
