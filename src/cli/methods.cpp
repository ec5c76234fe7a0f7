// frugal methods: the method tables, for people, machines and the README.
#include "cli/methods.h"

#include "base/error.h"
#include "distill/distill_table.h"
#include "quantize/trained_quantization.h"
#include "share/share_table.h"
#include "train/growth.h"
#include "train/initialization.h"
#include "train/optimizer.h"
#include "tune/adapter.h"
#include "tune/lisa.h"

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

template <typename T>
void append(Methods& methods, const MethodTable<T>& table, const std::string& use) {
  for (const MethodRow<T>& row : table.rows())
    methods.append({{row.id, row.title, row.leaf, row.arxiv, row.summary, row.options, use, row.claims, row.reference}});
}

Json row_json(const Method& row) {
  Json options = Json::array(), claims = Json::array();
  for (const OptionSpec& option : row.options) options.push_back(option_json(option));
  for (const Claim& claim : row.claims) {
    claims.push_back({{"statement", claim.statement},
                      {"model", claim.model},
                      {"baseline", claim.baseline},
                      {"method", claim.method},
                      {"metric", claim.metric},
                      {"lower_is_better", claim.lower_is_better},
                      {"factor", claim.factor},
                      {"bound", claim.bound},
                      {"chunks", claim.chunks}});
  }
  return {{"id", row.id},           {"title", row.title},  {"leaf", row.leaf},   {"arxiv", row.arxiv},
          {"summary", row.summary}, {"use", row.function}, {"options", options}, {"claim", row.claims.empty() ? Json(row.reference) : claims}};
}

std::string paper(const Method& row) {
  const bool arxiv = row.arxiv.size() >= 9 && row.arxiv.find_first_not_of("0123456789.") == std::string::npos;
  return arxiv ? fmt::format("[{0}](https://arxiv.org/abs/{0})", row.arxiv) : row.arxiv;
}

std::string markdown(const Methods& methods) {
  std::string out = "| id | method | of | paper | what it does |\n|---|---|---|---|---|\n";
  for (const Method& row : methods.rows()) {
    out += fmt::format("| `{}` | {} | `{}` | {} | {} |\n", row.id, row.title, row.function, paper(row), row.summary);
  }
  return out;
}

std::string details(const Method& row) {
  std::string out = fmt::format("{} - {} ({}/, {})\n{}\n\nfrugal {} {}\noptions:\n", row.id, row.title, row.leaf, row.arxiv, row.summary, row.function, row.id);
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
  const Methods methods = all_methods(context);
  if (!values.id.empty()) {
    const Method& row = methods.at(values.id);
    if (context.json) {
      print_json(row_json(row));
    } else {
      print(details(row));
    }
    return;
  }
  if (context.json) {
    Json rows = Json::array();
    for (const Method& row : methods.rows()) rows.push_back(row_json(row));
    print_json(rows);
  } else if (values.markdown) {
    print(markdown(methods));
  } else {
    std::string out, use;
    for (const Method& row : methods.rows()) {
      if (row.function != use) out += fmt::format("{}frugal {}\n", use.empty() ? "" : "\n", row.function);
      use = row.function;
      out += fmt::format("  {:<18} {:<12} {}\n", row.id, row.arxiv, row.summary);
    }
    print(out);
  }
}

}  // namespace

Methods all_methods(const Context& context) {
  Methods methods;
  append(methods, context.steps, "compress --step");
  append(methods, distill::distill_table(), "distill --method");
  append(methods, tune::adapter_table(), "tune --method");
  append(methods, tune::layer_sampling_table(), "tune --method");
  append(methods, quantize::trained_quantization_table(), "train --method");
  append(methods, share::share_table(), "train --method");
  append(methods, train::optimizer_table(), "train --optimizer");
  append(methods, train::growth_table(), "grow --method");
  append(methods, train::initialization_table(), "train --initialization");
  return methods;
}

void add_methods(CLI::App& app, Context& context) {
  const auto values = std::make_shared<MethodsValues>();
  new_verb(app, context, "methods", "The methods: paper, options, claim", [&context, values] { run(context, *values); })
      .text("id", values->id, "One method in full")
      .flag("--markdown", values->markdown, "The table as the README has it");
}

}  // namespace frugal::cli
