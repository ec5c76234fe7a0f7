#include "serve/http/target.h"

#include <gtest/gtest.h>

namespace frugal::serve {
namespace {

std::string path_of(const std::string& text) {
  Target target;
  const char* wrong = read_target(text, "GET", target);
  return wrong ? "!" : target.path;
}

TEST(RequestTarget, PathsHaveOneNormalForm) {
  for (const auto& [text, path] : std::vector<std::pair<std::string, std::string>>{
           {"/", "/"},
           {"/v1/models", "/v1/models"},
           {"/v1/models/", "/v1/models/"},
           {"//v1///models", "/v1/models"},
           {"/v1/./models/.", "/v1/models/"},
           {"/v1/../admin", "/admin"},
           {"/v1/..", "/"},
           {"/../../etc/passwd", "/etc/passwd"},
           {"/%2e%2e/%2E/x", "/x"},
           {"/v1%2f..%2fadmin", "/admin"},
           {"/..%2fx", "/x"},
           {"/%252e%252e/x", "/%2e%2e/x"},
           {"/a%20b", "/a b"},
           {"/%e2%82%ac", "/\xe2\x82\xac"},
           {"/...", "/..."},
           {"/a;b=c", "/a;b=c"},
           {"/a?b/../c", "/a"},
           {"?", "/"},
           {"http://host", "/"},
           {"HTTP://host:80/a", "/a"},
       }) {
    EXPECT_EQ(path_of(text), text == "?" ? "!" : path) << text;
  }
}

TEST(RequestTarget, WhatIsNotAPathIsRefused) {
  for (const std::string text : {"/%c0%ae",
                                 "/%e0%80%ae",
                                 "/%ed%a0%80",
                                 "/%f4%90%80%80",
                                 "/%f8%88%80%80%80",
                                 "/%80",
                                 "/%e2%82",
                                 "/%0a",
                                 "/%7f",
                                 "/%",
                                 "/%4",
                                 "/%g0",
                                 "/a b",
                                 "/\"",
                                 "/<",
                                 "/{",
                                 "a",
                                 "",
                                 "*",
                                 "http:/x",
                                 "ftp://x/",
                                 "/a?b#c",
                                 "/a?\"",
                                 "http://[::1/"}) {
    EXPECT_EQ(path_of(text), "!") << text;
  }
}

TEST(RequestTarget, QueriesAndAuthoritiesAreKeptAsSent) {
  Target target;
  EXPECT_EQ(read_target("http://Host:8/a%20?b=%20&c=?[|]", "GET", target), nullptr);
  EXPECT_EQ(target.query, "b=%20&c=?[|]");
  EXPECT_EQ(target.authority, "Host:8");
}

TEST(AllowedHosts, AWildcardAddressTakesLiteralAddresses) {
  const AllowedHosts all("0.0.0.0", {}), one("192.168.1.5", {}), six("fe80::1", {}), any("127.0.0.1", {"*"}), named("gpu-box", {"api.example", "::2"});
  for (const char* literal : {"192.168.1.5", "192.168.1.5:80", "[fe80::1]:80", "localhost"}) EXPECT_TRUE(all.allows(literal)) << literal;
  for (const char* name : {"evil.example", "192.168.1.5.nip.io", "192.168.1", "3232235781"}) EXPECT_FALSE(all.allows(name)) << name;
  EXPECT_TRUE(one.allows("192.168.1.5:8080"));
  EXPECT_FALSE(one.allows("192.168.1.6"));
  EXPECT_TRUE(six.allows("[FE80::1]"));
  EXPECT_TRUE(any.allows("evil.example"));
  for (const char* name : {"GPU-box:1", "api.example", "[::2]:3", "127.0.0.1", "[::1]"}) EXPECT_TRUE(named.allows(name)) << name;
}

}  // namespace
}  // namespace frugal::serve
