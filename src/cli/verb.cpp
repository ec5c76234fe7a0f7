#include "cli/verb.h"

#include <CLI/CLI.hpp>

#include "cli/context.h"

namespace frugal::cli {

Verb& Verb::text(const std::string& names, std::string& value, const std::string& help) {
  last_ = app_->add_option(names, value, help);
  if (!value.empty()) last_->capture_default_str();
  return *this;
}

Verb& Verb::texts(const std::string& names, std::vector<std::string>& values, const std::string& help) {
  last_ = app_->add_option(names, values, help);
  if (names.starts_with("-")) last_->expected(1)->allow_extra_args(false)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  return *this;
}

Verb& Verb::integer(const std::string& names, int64_t& value, int64_t min, int64_t max, const std::string& help) {
  last_ = app_->add_option(names, value, help)->check(CLI::Range(min, max))->capture_default_str();
  return *this;
}

Verb& Verb::integers(const std::string& names, std::vector<int32_t>& values, const std::string& help) {
  last_ = app_->add_option(names, values, help)->delimiter(',');
  return *this;
}

Verb& Verb::number(const std::string& names, double& value, double min, double max, const std::string& help) {
  last_ = app_->add_option(names, value, help)->check(CLI::Range(min, max))->capture_default_str();
  return *this;
}

Verb& Verb::choice(const std::string& names, std::string& value, const std::vector<std::string>& choices, const std::string& help) {
  last_ = app_->add_option(names, value, help)->check(CLI::IsMember(choices))->capture_default_str();
  return *this;
}

Verb& Verb::flag(const std::string& names, bool& value, const std::string& help) {
  last_ = app_->add_flag(names, value, help);
  return *this;
}

Verb& Verb::each(const std::string& names, std::function<void(const std::string&)> use, const std::string& help) {
  const auto use_all = [use = std::move(use)](const std::vector<std::string>& values) {
    for (const std::string& value : values) use(value);
  };
  last_ = app_->add_option_function<std::vector<std::string>>(names, use_all, help);
  last_->expected(1)->allow_extra_args(false)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  return *this;
}

Verb& Verb::flag_each(const std::string& names, std::function<void()> use, const std::string& help) {
  last_ = app_->add_flag_callback(names, std::move(use), help);
  return *this;
}

Verb& Verb::required() {
  last_->required();
  return *this;
}

CLI::App& verb_group(CLI::App& app, const std::string& name, const std::string& summary) {
  CLI::App* group = app.add_subcommand(name, summary);
  group->require_subcommand(1);
  return *group;
}

Verb new_verb(CLI::App& app, Context& context, const std::string& name, const std::string& summary, std::function<void()> work) {
  CLI::App* verb = app.add_subcommand(name, summary);
  verb->callback([&context, work = std::move(work)] { context.run = work; });
  return Verb(verb)
      .flag("--json", context.json, "Machine-readable output on stdout")
      .text("-t,--threads", context.threads_text, "Threads (0: all cores); bench takes a list")
      .integer("-s,--seed", context.seed, -1, INT64_MAX, "Seed of everything random (-1: fixed for methods, random for sampling)")
      .choice("--log-level", context.log_level, {"debug", "info", "warning", "error", "off"}, "What is said on stderr")
      .text("--log-file", context.log_file, "Append what is said to this file as well, with the time")
      .flag("--offline", context.offline, "Use only what the hub cache holds")
      .text("--revision", context.revision, "Branch, tag or commit of a hub name")
      .text("--hf-file", context.hub_file, "GGUF file of a hub repository (-hff)")
      .text("--hf-token", context.hub_token, "Token of the hub (-hft), in place of HF_TOKEN");
}

}  // namespace frugal::cli
