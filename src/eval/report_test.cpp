#include "eval/report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "eval/report_data.h"
#include "eval/report_labels.h"
#include "eval/report_plot.h"
#include "eval/report_scale.h"
#include "eval/report_test_rows.h"
#include "eval/report_text.h"
#include "oracle.h"

namespace frugal::eval {
namespace {
namespace fs = std::filesystem;

// What Python's own parsers find in a document of ours.
Json checked(const std::string& document, const std::string& extension) {
  const testing::TemporaryFolder folder;
  const std::string file = folder.write("report." + extension, document);
  const std::string found = file + ".json";
  const int code = std::system(fmt::format("'{}' '{}/src/eval/report_test_check.py' '{}' > '{}'", testing::python(), FRUGAL_SOURCE_DIR, file, found).c_str());
  EXPECT_EQ(code, 0) << extension << " is not well-formed";
  return code == 0 ? parse_json(read_text_file(found, size_t{64} << 20), "report_test_check.py") : Json::object();
}

// A machine of its own, a little slower.
std::vector<chain::LedgerRow> on_another_machine(std::vector<chain::LedgerRow> rows) {
  for (chain::LedgerRow& row : rows) {
    row.machine.host = "00000000000000bb";
    row.machine.isa = "avx2";
    *row.decode_tps *= 0.5;
    row.time = "2026-11-23T00:00:00Z";
  }
  return rows;
}

std::vector<chain::LedgerRow> together(std::vector<chain::LedgerRow> a, const std::vector<chain::LedgerRow>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(Report, PageAndPictureAreWellFormedAndShowEveryPointInEveryPlot) {
  const auto rows = made_up_ledger();
  const auto evaluations = static_cast<int64_t>(std::count_if(rows.begin(), rows.end(), [](const auto& row) { return row.kind == chain::RowKind::eval; }));
  for (const auto& [extension, document] : {std::pair{"html", report_html(rows)}, {"svg", report_svg(rows)}}) {
    const Json found = checked(document, extension);
    for (int64_t id = 1; id <= evaluations; ++id) EXPECT_EQ(std::count(found["points"].begin(), found["points"].end(), Json(id)), 3) << extension << " " << id;
    std::set<std::string> texts;
    for (const Json& text : found["texts"]) texts.insert(text.get<std::string>());
    for (const char* text :
         {"gptq 3/64", "wanda 0.5 + gptq 4/64", "gptq 2/32 (×446)", "base", "Quality against size", "Quality against decode rate", "Quality against memory"}) {
      EXPECT_TRUE(texts.contains(text)) << extension << " lacks " << text;
    }
  }
}

TEST(Report, HundredsOfPointsLabelTheFrontOnlyAndExtremeNumbersEnd) {
  std::vector<chain::LedgerRow> rows = made_up_ledger();
  const auto point = std::find_if(rows.rbegin(), rows.rend(), [](const auto& row) { return row.kind == chain::RowKind::eval; });
  const chain::LedgerRow last = *point;
  for (int i = 0; i < 400; ++i) {
    rows.push_back(last);
    rows.back().chain = {fmt::format("rtn:bits=4,group={}", 16 + i)};
    rows.back().leaves = {"quantize"};
  }
  rows.back().decode_tps = 1e18;
  rows[rows.size() - 2].decode_tps = 5e-324;
  const Json found = checked(report_svg(rows), "svg");
  EXPECT_LT(std::count_if(found["texts"].begin(), found["texts"].end(), [](const Json& text) { return text.get<std::string>().starts_with("rtn 4/"); }), 200);
}

TEST(Report, TheFrontIsTheOneThatBruteForceFinds) {
  const Report report = arrange(made_up_ledger());
  ASSERT_EQ(report.groups.size(), 1u);
  for (const Point& a : report.points) {
    const auto beats = [&](const Point& b) {
      const double qa = a.row.ln_ratio.value_or(0), qb = b.row.ln_ratio.value_or(0);
      return *b.row.bytes <= *a.row.bytes && qb <= qa && (*b.row.bytes < *a.row.bytes || qb < qa);
    };
    EXPECT_EQ(a.on_size_front, std::none_of(report.points.begin(), report.points.end(), beats)) << a.label;
  }
}

TEST(Report, MachinesShareSizeButNeitherRatesNorMemory) {
  const auto here = made_up_ledger();
  const Report report = arrange(together(here, on_another_machine(here)));
  ASSERT_EQ(report.groups.size(), 1u);
  const TextGroup& group = report.groups[0];
  EXPECT_EQ(group.machines.size(), 2u);
  EXPECT_EQ(group.distinct.size() * 2, group.points.size());
  const std::vector<Plot> plots = plots_of(report, group);
  ASSERT_EQ(plots.size(), 5u);
  for (const Plot& plot : plots) EXPECT_EQ(plot.points.size(), group.distinct.size()) << plot.title;
  // Every point of the slower machine would be off the front if the two were mixed.
  const auto on_rate_front = [&](const std::vector<int>& points) {
    return std::count_if(points.begin(), points.end(), [&](int i) { return report.at(i).on_rate_front; });
  };
  EXPECT_GT(on_rate_front(group.machines[0].points), 1);
  EXPECT_EQ(on_rate_front(group.machines[0].points), on_rate_front(group.machines[1].points));
  const std::string page = report_html(together(here, on_another_machine(here)));
  EXPECT_NE(page.find("must not be compared"), std::string::npos);
}

TEST(Report, AnotherTextContextChunkCountOrBaseMakesItsOwnSection) {
  auto rows = made_up_ledger();
  const auto original = rows;
  for (int what = 0; what < 4; ++what) {
    auto other = original;
    for (chain::LedgerRow& row : other) {
      if (what == 0) row.text_hash = "another";
      if (what == 1) row.ctx = 256;
      if (what == 2) row.chunks = 8;
      if (what == 3) row.base_hash = "another";
    }
    rows = together(rows, other);
  }
  EXPECT_EQ(arrange(rows).groups.size(), 5u);
  const Json found = checked(report_html(rows), "html");
  EXPECT_EQ(found["figures"], 15);
  EXPECT_NE(report_table(rows).find("5 groups that must not be compared"), std::string::npos);
}

TEST(Report, HostileTextsStayTexts) {
  auto rows = made_up_ledger();
  const std::string hostile = "</title></text><script>alert(1)</script>\"' onload='x' &amp; ]]> \x1b[31m | \x01\xFF\xED\xA0\x80 \xE2\x80\xAE {{body}}";
  for (chain::LedgerRow& row : rows) {
    row.name = row.model = row.text = row.notes = row.machine.cpu = row.machine.isa = hostile;
    for (std::string& step : row.chain) step = hostile + step;
    row.tasks[hostile] = 0.5;
  }
  const Json page = checked(report_html(rows), "html"), picture = checked(report_svg(rows), "svg"), plain = checked(report_html(made_up_ledger()), "html");
  EXPECT_EQ(page["tags"], plain["tags"]);  // no element that a harmless ledger has not
  EXPECT_EQ(page["attributes"], plain["attributes"]);
  EXPECT_EQ(std::count(picture["tags"].begin(), picture["tags"].end(), Json("script")), 0);
  const std::string table = report_table(rows);
  EXPECT_EQ(std::count_if(table.begin(), table.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 && c != '\n'; }), 0);
  EXPECT_EQ(table.find("\xE2\x80\xAE"), std::string::npos);
  EXPECT_NE(table.find("\\|"), std::string::npos);
}

TEST(Report, LedgersThatLackValuesStillMakeAReport) {
  for (const auto& rows :
       {std::vector<chain::LedgerRow>{}, std::vector<chain::LedgerRow>(1), std::vector<chain::LedgerRow>{row_of({{}, {}, 100, 0, 0, 10, 100})}}) {
    checked(report_html(rows), "html");
    checked(report_svg(rows), "svg");
    EXPECT_FALSE(report_table(rows).empty());
  }
  auto rows = made_up_ledger();
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i % 3 == 0) rows[i].ln_ratio.reset();
    if (i % 4 == 0) rows[i].decode_tps.reset();
    rows[i].peak_rss_bytes.reset();
  }
  rows[1].ln_ratio = 1e300;
  rows[2].bytes = 0;
  const Json found = checked(report_html(rows), "html");
  EXPECT_EQ(found["figures"], 2);
}

TEST(Report, WithoutPairedDifferencesPerplexityIsDrawn) {
  auto rows = made_up_ledger();
  for (chain::LedgerRow& row : rows) row.ln_ratio.reset();
  const Report report = arrange(rows);
  EXPECT_FALSE(report.groups[0].paired);
  EXPECT_EQ(plots_of(report, report.groups[0])[0].points.size(), report.points.size());
  checked(report_svg(rows), "svg");
}

TEST(ReportLabels, NoLabelCoversAnotherOrAMarkerOrLeavesThePlot) {
  std::mt19937_64 random(testing::test_seed());
  std::uniform_real_distribution<double> x(0, 900), y(0, 380);
  const Box area{0, 0, 900, 380};
  const auto overlap = [](const Box& a, const Box& b) {
    return std::min(a.right, b.right) - std::max(a.left, b.left) > 1e-6 && std::min(a.bottom, b.bottom) - std::max(a.top, b.top) > 1e-6;
  };
  for (int round = 0; round < 20; ++round) {
    std::vector<LabelRequest> requests;
    for (int i = 0; i < 2 + round; ++i) {
      const double px = i % 3 ? x(random) : 400 + 10 * i, py = y(random);
      requests.push_back({px, py, py - 20, py + 20, "gptq 3/64 + wanda 0.5", fmt::format("#{}", i), i % 2 == 0});
    }
    const auto labels = place_labels(requests, {}, area, 12);
    ASSERT_EQ(labels.size(), requests.size());
    for (size_t i = 0; i < labels.size(); ++i) {
      if (!labels[i].shown) continue;
      EXPECT_TRUE(labels[i].box.left >= -0.1 && labels[i].box.top >= -0.1 && labels[i].box.right <= 900.1 && labels[i].box.bottom <= 380.1);
      for (size_t j = 0; j < labels.size(); ++j) {
        EXPECT_FALSE(overlap(labels[i].box, {requests[j].x - 5, requests[j].y - 5, requests[j].x + 5, requests[j].y + 5}));
        EXPECT_FALSE(j != i && labels[j].shown && overlap(labels[i].box, labels[j].box)) << i << " " << j;
      }
    }
    const auto shown = std::count_if(labels.begin(), labels.end(), [](const PlacedLabel& label) { return label.shown; });
    EXPECT_GE(shown * 10, static_cast<int64_t>(labels.size()) * 9);
  }
}

TEST(ReportScale, TicksAreRoundOrderedAndInside) {
  std::mt19937_64 random(testing::test_seed());
  std::uniform_real_distribution<double> exponent(-3, 12), share(0, 1);
  for (int round = 0; round < 500; ++round) {
    const double low = std::pow(10, exponent(random)), high = low * (1 + 50 * std::pow(share(random), 3) + 1e-3);
    const Scale scale = scale_around({low, high}, 60, 900);
    EXPECT_LT(scale(low), scale(high));
    const auto ticks = ticks_of(scale, TickFormat::bytes, 70);
    EXPECT_GE(ticks.size(), 2u) << low << " " << high;
    for (size_t i = 0; i < ticks.size(); ++i) {
      EXPECT_TRUE(scale(ticks[i].value) >= 59.9 && scale(ticks[i].value) <= 900.1);
      EXPECT_TRUE(i == 0 || scale(ticks[i].value) - scale(ticks[i - 1].value) >= 69.9);
    }
  }
}

TEST(ReportText, InvalidUtf8ControlsAndReorderingMarksAreReplaced) {
  EXPECT_EQ(clean("a\xC3\xA9\xF0\x9F\x98\x80"), "a\xC3\xA9\xF0\x9F\x98\x80");
  for (const char* bad : {"\xFF", "\xC0", "\xE2\x80\xAE", "\x1b", "\x7f", "\xEF\xBF\xBF", "\xEF\xBF\xBE"}) EXPECT_EQ(clean(bad), "\xEF\xBF\xBD") << bad;
  EXPECT_EQ(clean("\xC3"), "\xEF\xBF\xBD");
  EXPECT_EQ(escaped("<a href=\"'&\">"), "&lt;a href=&quot;&#39;&amp;&quot;&gt;");
  EXPECT_EQ(clean("abcdef", 3), "abc\xE2\x80\xA6");
}

TEST(ReportText, NumbersAreShort) {
  EXPECT_EQ(format_bytes(98362432), "98.4 MB");
  EXPECT_EQ(format_bytes(1.5e9), "1.50 GB");
  EXPECT_EQ(format_number(0.01234), "0.0123");
  EXPECT_EQ(format_number(4096), "4,096");
  EXPECT_EQ(format_ratio(0),
            "\xC3\x97"
            "1.000");
  EXPECT_EQ(format_seconds(200), "3 min 20 s");
  EXPECT_EQ(short_chain({"gptq:bits=3,group=64", "wanda:sparsity=0.5", "rtn"}, {}), "gptq 3/64 + wanda 0.5 + rtn");
  EXPECT_EQ(full_chain({"a:b=c"}, {"kv:bits=8"}), "a:b=c \xE2\x86\x92 kv:bits=8");
}

}  // namespace
}  // namespace frugal::eval
