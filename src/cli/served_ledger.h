// A ledger for the web page: its points, and where the model of each is.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"

namespace frugal::serve {
class Service;
}

namespace frugal::cli {

// What lies in models/ beside the ledger, where frugal sweep leaves checkpoints.
std::vector<std::string> paths_beside(const std::string& ledger);

// eval::report_json, "ledger", its path, and in each row "path", the checkpoint, and "served_as", the name of the served model that it is; null where there is none.
// A model belongs to a row when size and chain are the same, of an original size and hash. Throws Error{io}.
Json served_ledger(const std::string& ledger, serve::Service& service);

}  // namespace frugal::cli
