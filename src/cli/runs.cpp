// frugal runs: training runs side by side, while they go on and after.
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "cli/context.h"
#include "train/run_report.h"

namespace frugal::cli {
namespace {

struct RunsValues {
  std::vector<std::string> folders;
  std::string page;
};

size_t chart_width() {
  winsize size{};
  const bool known = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  return known ? std::clamp<size_t>(size.ws_col - 1, 40, 120) : 80;
}

void run(const Context& context, const RunsValues& values) {
  if (!values.page.empty() && !values.page.ends_with(".html"))
    fail(ErrorKind::invalid_input, "--html: the page must end in .html, is {}", printable(values.page));
  const std::vector<train::RunHistory> runs = train::read_runs(values.folders);
  if (!values.page.empty()) write_text_file(values.page, train::runs_page(runs));
  if (context.json) {
    Json list = Json::array();
    for (const train::RunHistory& one : runs) list.push_back(train::to_json(one));
    return print_json(list);
  }
  print(train::runs_table(runs) + train::runs_charts(runs, chart_width()));
}

}  // namespace

void add_runs(CLI::App& app, Context& context) {
  const auto values = std::make_shared<RunsValues>();
  new_verb(app, context, "runs", "Show training runs, at work or over: a table, curves, a page", [&context, values] { run(context, *values); })
      .texts("folders", values->folders, "Output folders of train and tune, or folders that hold such")
      .required()
      .text("--html", values->page, "Page to write as well, with the curves of all runs");
}

}  // namespace frugal::cli
