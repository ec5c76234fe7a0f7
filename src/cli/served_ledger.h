// A ledger for the web page: its points, and where the model of each is.
#pragma once

#include <string>

#include "base/json.h"

namespace frugal::serve {
class Service;
}

namespace frugal::cli {

// eval::report_json, "ledger", its path, and in each row "path", its checkpoint among the served ones and those in models/ beside the ledger, where frugal sweep
// leaves them, and "served_as", the name of the served model; null where there is none. A checkpoint belongs to a row when size and chain
// are the same, of an original size and hash. Throws Error{io}.
Json served_ledger(const std::string& ledger, const serve::Service& service);

}  // namespace frugal::cli
