#include "text/grammar/schema_formats.h"

namespace frugal::text::grammar {

namespace {

// RFC 3339, in capitals, without leap seconds and the year 0; February 29 in leap years only.
#define FRUGAL_LEAP_PAIR "(?:0[48]|[2468][048]|[13579][26])"
#define FRUGAL_YEAR "(?:\\d{3}[1-9]|\\d\\d[1-9]\\d|\\d[1-9]\\d\\d|[1-9]\\d{3})"
#define FRUGAL_DATE                                                                                                 \
  "(?:" FRUGAL_YEAR                                                                                                 \
  "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|02-(?:0[1-9]|1\\d|2[0-8]))|" \
  "(?:\\d\\d" FRUGAL_LEAP_PAIR "|" FRUGAL_LEAP_PAIR "00)-02-29)"
#define FRUGAL_TIME "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,9})?(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)"
#define FRUGAL_OCTET "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"

struct Row {
  std::string_view name, pattern;
};
constexpr Row kRows[] = {
    {"date", "^" FRUGAL_DATE "$"},
    {"time", "^" FRUGAL_TIME "$"},
    {"date-time", "^" FRUGAL_DATE "T" FRUGAL_TIME "$"},
    {"uuid", "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"},
    {"ipv4", "^" FRUGAL_OCTET "\\." FRUGAL_OCTET "\\." FRUGAL_OCTET "\\." FRUGAL_OCTET "$"},
};

}  // namespace

std::string_view pattern_of_format(std::string_view name) {
  for (const Row& row : kRows) {
    if (row.name == name) return row.pattern;
  }
  return "";
}

std::string names_of_formats() {
  std::string names;
  for (const Row& row : kRows) names += (names.empty() ? "" : ", ") + std::string(row.name);
  return names;
}

}  // namespace frugal::text::grammar
