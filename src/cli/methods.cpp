// frugal methods: the method tables, for people, machines and the README.
#include "base/error.h"
#include "cli/context.h"

namespace frugal::cli {
namespace {

struct MethodsValues {
  std::string id;
  bool markdown = false;
};

std::string type_name(OptionType type) {
  switch (type) {
    case OptionType::integer: return "integer";
    case OptionType::number: return "number";
    case OptionType::boolean: return "boolean";
    case OptionType::text: return "text";
    case OptionType::choice: return "choice";
  }
  return "";
}

Json option_json(const OptionSpec& option) {
  Json object = {{"name", option.name}, {"type", type_name(option.type)}, {"default", option.fallback}, {"help", option.help}};
  if (option.type == OptionType::integer || option.type == OptionType::number) object["range"] = {option.min, option.max};
  if (option.type == OptionType::choice) object["choices"] = option.choices;
  return object;
}

Json row_json(const chain::StepRow& row) {
  Json options = Json::array(), claims = Json::array();
  for (const OptionSpec& option : row.options) options.push_back(option_json(option));
  for (const Claim& claim : row.claims) {
    claims.push_back({{"statement", claim.statement},
                      {"model", claim.model},
                      {"baseline", claim.baseline},
                      {"method", claim.method},
                      {"metric", claim.metric},
                      {"lower_is_better", claim.lower_is_better},
                      {"bound", claim.bound},
                      {"chunks", claim.chunks}});
  }
  return {{"id", row.id},
          {"title", row.title},
          {"leaf", row.leaf},
          {"arxiv", row.arxiv},
          {"summary", row.summary},
          {"options", options},
          {"claim", row.claims.empty() ? Json(row.reference) : claims}};
}

std::string paper(const chain::StepRow& row) {
  const bool arxiv = row.arxiv.size() >= 9 && row.arxiv.find_first_not_of("0123456789.") == std::string::npos;
  return arxiv ? fmt::format("[{0}](https://arxiv.org/abs/{0})", row.arxiv) : row.arxiv;
}

std::string markdown(const chain::StepTable& table) {
  std::string out = "| id | method | leaf | paper | what it does |\n|---|---|---|---|---|\n";
  for (const chain::StepRow& row : table.rows()) {
    out += fmt::format("| `{}` | {} | `{}/` | {} | {} |\n", row.id, row.title, row.leaf, paper(row), row.summary);
  }
  return out;
}

std::string details(const chain::StepRow& row) {
  std::string out = fmt::format("{} - {} ({}/, {})\n{}\n\noptions:\n", row.id, row.title, row.leaf, row.arxiv, row.summary);
  for (const OptionSpec& option : row.options) {
    std::string range;
    if (option.type == OptionType::integer || option.type == OptionType::number) range = fmt::format(" {}..{}", option.min, option.max);
    if (option.type == OptionType::choice) range = fmt::format(" {}", fmt::join(option.choices, "|"));
    out += fmt::format("  {}={}  ({}{}) {}\n", option.name, option.fallback, type_name(option.type), range, option.help);
  }
  for (const Claim& claim : row.claims) {
    out += fmt::format("\nclaim: {}\n  baseline: {}\n  method:   {}\n", claim.statement, fmt::join(claim.baseline, " "), fmt::join(claim.method, " "));
  }
  if (row.claims.empty()) out += fmt::format("\nno claim: {}\n", row.reference);
  return out;
}

void run(const Context& context, const MethodsValues& values) {
  if (!values.id.empty()) {
    const chain::StepRow& row = context.steps.at(values.id);
    if (context.json) {
      print_json(row_json(row));
    } else {
      print(details(row));
    }
    return;
  }
  if (context.json) {
    Json rows = Json::array();
    for (const chain::StepRow& row : context.steps.rows()) rows.push_back(row_json(row));
    print_json(rows);
  } else if (values.markdown) {
    print(markdown(context.steps));
  } else {
    std::string out;
    for (const chain::StepRow& row : context.steps.rows()) out += fmt::format("{:<16} {:<10} {:<12} {}\n", row.id, row.leaf, row.arxiv, row.summary);
    print(out);
  }
}

}  // namespace

void add_methods(CLI::App& app, Context& context) {
  const auto values = std::make_shared<MethodsValues>();
  new_verb(app, context, "methods", "The methods: paper, options, claim", [&context, values] { run(context, *values); })
      .text("id", values->id, "One method in full")
      .flag("--markdown", values->markdown, "The table as the README has it");
}

}  // namespace frugal::cli
