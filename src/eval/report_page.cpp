#include "eval/report_page.h"

#include "base/error.h"
#include "eval/report_page_css.h"
#include "eval/report_plot.h"

namespace frugal::eval {

std::string page_style() { return kPageCss + plot_style(); }

std::string filled_page(std::string_view page, const std::vector<std::pair<std::string_view, std::string>>& values) {
  std::string out;
  while (true) {
    const size_t open = page.find("{{");
    out += page.substr(0, open);
    if (open == page.npos) return out;
    const size_t close = page.find("}}", open);
    FRUGAL_ASSERT(close != page.npos);
    const std::string_view name = page.substr(open + 2, close - open - 2);
    for (const auto& [key, value] : values) {
      if (key == name) out += value;
    }
    page.remove_prefix(close + 2);
  }
}

}  // namespace frugal::eval
