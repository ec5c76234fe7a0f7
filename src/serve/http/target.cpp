#include "serve/http/target.h"

#include <arpa/inet.h>

#include <algorithm>

namespace frugal::serve {
namespace {

bool is_letter_or_digit(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }

bool contains(std::string_view set, char c) { return c != '\0' && set.find(c) != std::string_view::npos; }

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// Shortest forms only, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const int length = lead < 0x80 ? 1 : lead >= 0xc2 && lead < 0xe0 ? 2 : lead >= 0xe0 && lead < 0xf0 ? 3 : lead >= 0xf0 && lead < 0xf5 ? 4 : 0;
    if (length == 0 || i + static_cast<size_t>(length) > text.size()) return false;
    uint32_t code = length == 1 ? lead : lead & (0x7fu >> length);
    for (int k = 1; k < length; ++k) {
      const auto next = static_cast<unsigned char>(text[i + static_cast<size_t>(k)]);
      if ((next & 0xc0) != 0x80) return false;
      code = code << 6 | (next & 0x3f);
    }
    if ((length == 3 && code < 0x800) || (length == 4 && (code < 0x10000 || code > 0x10ffff)) || (code >= 0xd800 && code < 0xe000)) return false;
    i += static_cast<size_t>(length);
  }
  return true;
}

// Decoded once.
const char* decode_path(std::string_view text, std::string& path) {
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      const int high = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1, low = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
      if (high < 0 || low < 0) return "the path has a % that escapes nothing";
      c = static_cast<char>(high * 16 + low);
      if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return "the path has a control character";
      i += 2;
    } else if (!is_letter_or_digit(c) && !contains("-._~!$&'()*+,;=:@/[]", c)) {
      return "the path has a character that must be escaped";
    }
    path += c;
  }
  return is_utf8(path) ? nullptr : "the path is not UTF-8";
}

// Without empty, "." and ".." segments (RFC 3986, 5.2.4); what would climb above the root stays there.
std::string normal_path(std::string_view path) {
  std::vector<std::string_view> segments;
  bool open = false;  // ends in a slash
  for (size_t begin = 0; begin < path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view segment = path.substr(begin, end - begin);
    open = end < path.size() || segment == "." || segment == "..";
    if (segment == "..") {
      if (!segments.empty()) segments.pop_back();
    } else if (!segment.empty() && segment != ".") {
      segments.push_back(segment);
    }
    begin = end + 1;
  }
  std::string normal;
  for (const std::string_view segment : segments) normal.append("/").append(segment);
  if (open || normal.empty()) normal += '/';
  return normal;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return out;
}

// The port cut off.
std::string_view host_of(std::string_view authority) {
  const size_t end = authority.starts_with('[') ? authority.find(']') + 1 : std::min(authority.find(':'), authority.size());
  return authority.substr(0, end);
}

bool is_ipv4(const std::string& host) {
  in_addr address;
  return ::inet_pton(AF_INET, host.c_str(), &address) == 1;
}

bool is_ipv6(const std::string& host) {
  in6_addr address;
  return ::inet_pton(AF_INET6, host.c_str(), &address) == 1;
}

}  // namespace

bool is_authority(std::string_view text) {
  std::string_view port;
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    if (end == std::string_view::npos || !is_ipv6(std::string(text.substr(1, end - 1)))) return false;
    port = text.substr(end + 1);
  } else {
    const std::string_view host = host_of(text);
    if (host.empty() || host.size() > 253) return false;
    if (!std::all_of(host.begin(), host.end(), [](char c) { return is_letter_or_digit(c) || c == '-' || c == '.' || c == '_'; })) return false;
    port = text.substr(host.size());
  }
  if (port.empty()) return true;
  if (port.front() != ':' || port.size() < 2 || port.size() > 6) return false;
  return std::all_of(port.begin() + 1, port.end(), [](char c) { return c >= '0' && c <= '9'; });
}

const char* read_target(std::string_view text, std::string_view method, Target& target) {
  if (text == "*") {
    if (method != "OPTIONS") return "the target * is for OPTIONS";
    target.path = "*";
    return nullptr;
  }
  if (!text.starts_with('/')) {
    if (method == "CONNECT" && is_authority(text)) {  // refused later, as a method
      target.path = "/";
      return nullptr;
    }
    if (!lower(text.substr(0, 7)).starts_with("http://")) return "the target of the request is no path";
    text.remove_prefix(7);
    const size_t end = std::min(text.find_first_of("/?"), text.size());
    target.authority = text.substr(0, end);
    if (!is_authority(target.authority)) return "the target of the request names no host";
    text.remove_prefix(end);
  }
  const size_t mark = std::min(text.find('?'), text.size());
  std::string path;
  if (const char* wrong = decode_path(text.substr(0, mark), path)) return wrong;
  target.path = normal_path(path);
  target.query = text.substr(std::min(mark + 1, text.size()));
  for (const char c : target.query) {
    if (c < 0x21 || c == 0x7f || contains("\"<>#", c)) return "the query has a character that must be escaped";
  }
  return nullptr;
}

AllowedHosts::AllowedHosts(const std::string& bound_host, const std::vector<std::string>& more) : names_{"localhost", "127.0.0.1", "[::1]"} {
  const auto add = [this](const std::string& host) { names_.push_back(is_ipv6(host) ? "[" + lower(host) + "]" : lower(host)); };
  add(bound_host);
  for (const std::string& host : more) {
    any_ = any_ || host == "*";
    add(host);
  }
  literals_ = bound_host == "0.0.0.0" || bound_host == "::" || bound_host == "[::]";
}

bool AllowedHosts::allows(std::string_view authority) const {
  const std::string host = lower(host_of(authority));
  if (any_ || std::find(names_.begin(), names_.end(), host) != names_.end()) return true;
  return literals_ && (host.starts_with('[') || is_ipv4(host));
}

}  // namespace frugal::serve
