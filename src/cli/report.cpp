// frugal report: ledgers as a page, a picture and a table.
#include "eval/report.h"
#include "base/error.h"
#include "base/file.h"
#include "chain/ledger.h"
#include "cli/context.h"

namespace frugal::cli {
namespace {

struct ReportValues {
  std::vector<std::string> ledgers;
  std::string output = "report.html";
};

void run(const Context& context, const ReportValues& values) {
  if (!values.output.ends_with(".html")) fail(ErrorKind::invalid_input, "the output must end in .html, is {}", printable(values.output));
  const chain::LedgerContents contents = chain::read_ledgers(values.ledgers);
  if (contents.rows.empty()) fail(ErrorKind::invalid_input, "the ledger has no rows to report");
  const std::string picture = values.output.substr(0, values.output.size() - 5) + ".svg";
  const std::string page = eval::report_html(contents.rows), drawing = eval::report_svg(contents.rows);
  write_text_file(picture, drawing);
  write_text_file(values.output, page);
  if (context.json) {
    print_json({{"report", values.output}, {"svg", picture}, {"rows", contents.rows.size()}, {"skipped", contents.problems.size()}});
  } else {
    print(eval::report_table(contents.rows));
  }
}

}  // namespace

void add_report(CLI::App& app, Context& context) {
  const auto values = std::make_shared<ReportValues>();
  new_verb(app, context, "report", "Draw the trade-off that ledgers hold: a page, an SVG, a table", [&context, values] { run(context, *values); })
      .texts("ledgers", values->ledgers, "Ledger files")
      .required()
      .text("-o,--output", values->output, "Page to write; the SVG is written beside it");
}

}  // namespace frugal::cli
