// The options of generate and chat, which mean the same in both.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/adapters.h"
#include "cli/context.h"
#include "engine/generator.h"

namespace frugal::cli {

struct CacheValues {
  std::string keys = "auto", values = "auto";
};

struct TemplateValues {
  std::string text, file;
};

struct GenerationValues {
  std::string model, prompt, prompt_file, system, system_file, template_arguments;
  TemplateValues chat_template;
  std::vector<std::string> reverse_prompts, stop, dry_breakers;
  int64_t predict = -1, context = 0, batch = 2048, ubatch = 512;
  CacheValues cache;
  AdapterValues adapters;
  bool exact = false, special = false, escape = false, single_turn = false, raw = false, conversation = false, timings = false;
  std::vector<std::pair<std::string, std::string>> sampling;  // raw values by option name, as given
};

// Binds model, prompt, context and every option of engine::sampling_options().
void add_generation_options(Verb& verb, GenerationValues& values);

nn::LoadedModel load_for_generation(const Context& context, const GenerationValues& values);
// Flag, else the model's generation_config.json, else neutral.
engine::Sampler sampler_of(const nn::LoadedModel& loaded, const GenerationValues& values, uint64_t seed);
// --cache-type-k and -v, and what they ask for. Throws Error{unsupported} where they differ.
void add_cache_options(Verb& verb, CacheValues& values);
nn::CacheType cache_type(const CacheValues& given, bool exact);
// --chat-template and --chat-template-file, and the model with that template, where one is given. Throws Error{invalid_input}.
void add_template_options(Verb& verb, TemplateValues& values);
void replace_template(const TemplateValues& values, nn::LoadedModel& model);
engine::GenerateOptions generate_options(const GenerationValues& values);
// Ids of a conversation through the model's chat template. Throws Error{invalid_input} when it has none.
std::vector<int32_t> chat_prompt(const nn::LoadedModel& loaded, const GenerationValues& values, const Json& messages);
std::string prompt_text(const GenerationValues& values);
std::string system_text(const GenerationValues& values);
std::string timings_text(const engine::GenerateResult& result);

}  // namespace frugal::cli
