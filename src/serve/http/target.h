// What a request line and a Host header name: the one form of a path that routes and keys are checked on, and which hosts are ours.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace frugal::serve {

struct Target {
  std::string path;       // as HttpRequest::path; "*" for OPTIONS *
  std::string query;      // as sent
  std::string authority;  // of an absolute target; else empty
};

// nullptr, or what is wrong with the target.
const char* read_target(std::string_view text, std::string_view method, Target& target);

// host [":" port]: a name, an IPv4 address or an IPv6 address in brackets.
bool is_authority(std::string_view text);

// Which hosts a request may name (HttpOptions::allowed_hosts).
class AllowedHosts {
 public:
  AllowedHosts(const std::string& bound_host, const std::vector<std::string>& more);
  bool allows(std::string_view authority) const;

 private:
  std::vector<std::string> names_;  // lower case, no port; IPv6 in brackets
  bool any_ = false, literals_ = false;
};

}  // namespace frugal::serve
