#include "io/hub.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/file.h"
#include "io/checkpoint.h"
#include "io/http_client.h"
#include "io/sha256.h"
#include "io/test_tools.h"

namespace frugal::io {
namespace {

namespace fs = std::filesystem;

// The Python hub as a child process, on loopback.
class Server {
 public:
  Server() {
    int in[2], out[2];
    if (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0) fail_errno("cannot make a pipe", "");
    const std::string python = testing::python(), script = FRUGAL_SOURCE_DIR "/tests/oracle/make_io_hub_server.py", log = folder_ / "log";
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(in[0], 0);
      ::dup2(out[1], 1);
      ::execl(python.c_str(), python.c_str(), script.c_str(), log.c_str(), nullptr);
      ::_exit(127);
    }
    ::close(in[0]);
    ::close(out[1]);
    input_ = in[1];
    FILE* ports = ::fdopen(out[0], "r");
    if (std::fscanf(ports, "%d %d", &port_, &other_port_) != 2) ADD_FAILURE() << "the server did not start";
    std::fclose(ports);
  }
  ~Server() {
    ::close(input_);
    ::waitpid(pid_, nullptr, 0);
  }

  HubOptions options(const std::string& cache) const {
    HubOptions options;
    options.endpoint = fmt::format("http://127.0.0.1:{}", port_);
    options.cache_dir = cache;
    return options;
  }
  // Lines "<method> <port index> <path> <range> <authorization>" that hold `text`.
  std::vector<std::string> requests(const std::string& text) const {
    std::ifstream log(folder_ / "log");
    std::vector<std::string> found;
    for (std::string line; std::getline(log, line);) {
      if (line.find(text) != line.npos) found.push_back(line);
    }
    return found;
  }

 private:
  TemporaryFolder folder_;
  pid_t pid_ = 0;
  int input_ = -1, port_ = 0, other_port_ = 0;
};

std::string weights_text() {
  std::string text;
  for (int i = 0; i < 400 * 256; ++i) text += static_cast<char>(i % 256);
  return text;
}

TEST(Hub, NamesAndPaths) {
  const TemporaryFolder folder;
  HubOptions options;
  options.cache_dir = folder.path();
  options.offline = true;
  const std::string path = folder.write("m.gguf", "x");
  EXPECT_EQ(resolve_model(path, options), path);
  for (const char* bad : {"", "name", "a/b/c", "../x", "a/..", "a/b:", "a/b:../q", "/absent/file.gguf", "a b/c", "a/b\n"}) {
    EXPECT_TRUE(outcome_of([&] { resolve_model(bad, options); }).starts_with("invalid input")) << bad;
  }
  EXPECT_TRUE(outcome_of([&] { resolve_model("a/b", options); }).starts_with("i/o error"));
}

TEST(Hub, ChoosesTheQuantByWholeWords) {
  const std::vector<std::string> names = {"README.md",           "m-Q4_K.gguf", "m-Q4_K_M.gguf", "m-q8_0-00001-of-00002.gguf", "m-q8_0-00002-of-00002.gguf",
                                          "mmproj-m-Q4_K_M.gguf"};
  EXPECT_EQ(choose_files(names, ""), (std::vector<std::string>{"m-Q4_K_M.gguf"}));
  EXPECT_EQ(choose_files(names, "q4_k"), (std::vector<std::string>{"m-Q4_K.gguf"}));
  EXPECT_EQ(choose_files(names, "Q8_0"), (std::vector<std::string>{"m-q8_0-00001-of-00002.gguf", "m-q8_0-00002-of-00002.gguf"}));
  EXPECT_TRUE(choose_files(names, "K").empty());
  EXPECT_TRUE(choose_files(names, "Q5_K_M").empty());
  EXPECT_EQ(choose_files({"b-Q2_K.gguf", "a-Q3_K.gguf"}, ""), (std::vector<std::string>{"a-Q3_K.gguf"}));
  EXPECT_EQ(choose_files({"config.json", "evil.py", "pytorch_model.bin", "../config.json", "../1_Pooling/config.json", "a/1_Pooling/config.json",
                          "model.safetensors", "x.gguf"},
                         ""),
            (std::vector<std::string>{"config.json", "model.safetensors"}));
}

TEST(Hub, OriginsAndRedirects) {
  EXPECT_EQ(origin_of("https://Host/x"), "https://host:443");
  EXPECT_EQ(origin_of("http://host:8080/x?y"), "http://host:8080");
  EXPECT_EQ(origin_of("ftp://host/x"), "");
  EXPECT_EQ(origin_of("/x"), "");
  EXPECT_EQ(resolve_location("http://a/x", "/y"), "http://a:80/y");
  EXPECT_EQ(resolve_location("http://a/x", "//b/y"), "");
  EXPECT_EQ(resolve_location("http://a/x", "y"), "");
  EXPECT_EQ(resolve_location("http://a/x", "http://b/y"), "http://b/y");
  EXPECT_EQ(percent_encode("a b/ü"), "a%20b%2F%C3%BC");
}

TEST(Hub, FetchesAModelIntoTheCacheLayoutOnce) {
  const Server server;
  const TemporaryFolder cache;
  const HubOptions options = server.options(cache.path());
  const std::string path = resolve_model("org/plain", options);
  EXPECT_EQ(path, cache / "models--org--plain/snapshots/0123456789abcdef0123456789abcdef01234567");
  EXPECT_EQ(read_text_file(path + "/model.safetensors", 1 << 20), weights_text());
  EXPECT_TRUE(fs::is_symlink(path + "/config.json"));
  EXPECT_FALSE(fs::exists(path + "/README.md"));
  EXPECT_EQ(read_json_in_directory(path + "/1_Pooling", "config.json"), Json({{"pooling_mode", "cls"}}));  // a link to a blob, one folder deeper
  EXPECT_TRUE(fs::exists(path + "/modules.json"));
  EXPECT_FALSE(fs::exists(path + "/2_Dense"));
  EXPECT_EQ(read_text_file(cache / "models--org--plain/refs/main", 100), "0123456789abcdef0123456789abcdef01234567");
  EXPECT_TRUE(fs::exists(cache / "CACHEDIR.TAG"));
  const std::string hash = sha256_hex(bytes_of_text(weights_text()));
  EXPECT_EQ(fs::read_symlink(path + "/model.safetensors"), "../../blobs/" + hash);
  const size_t before = server.requests("resolve").size();
  EXPECT_EQ(resolve_model("org/plain", options), path);
  EXPECT_EQ(server.requests("resolve").size(), before);
  HubOptions offline = options;
  offline.offline = true;
  const size_t all = server.requests("").size();
  EXPECT_EQ(resolve_model("org/plain", offline), path);
  EXPECT_EQ(server.requests("").size(), all);
  HubOptions unreachable = options;
  unreachable.endpoint = "http://127.0.0.1:1";
  EXPECT_EQ(resolve_model("org/plain", unreachable), path);
  EXPECT_TRUE(outcome_of([&] { resolve_model("org/gguf", unreachable); }).starts_with("i/o error"));
}

TEST(Hub, ACutDownloadIsResumed) {
  const Server server;
  const TemporaryFolder cache;
  HubOptions options = server.options(cache.path());
  options.retries = 0;
  EXPECT_TRUE(outcome_of([&] { resolve_model("org/cut", options); }).starts_with("i/o error"));
  const std::string blob = cache / "models--org--cut/blobs/" + sha256_hex(bytes_of_text(weights_text()));
  EXPECT_EQ(fs::file_size(blob + ".incomplete"), weights_text().size() / 2);
  const std::string path = resolve_model("org/cut", options);
  EXPECT_EQ(read_text_file(path + "/model.safetensors", 1 << 20), weights_text());
  EXPECT_FALSE(fs::exists(blob + ".incomplete"));
  EXPECT_EQ(server.requests(fmt::format("bytes={}-", weights_text().size() / 2)).size(), 1u);
}

TEST(Hub, AWrongHashIsRefusedAndDeleted) {
  const Server server;
  const TemporaryFolder cache;
  const std::string got = outcome_of([&] { resolve_model("org/wrong", server.options(cache.path())); });
  EXPECT_TRUE(got.starts_with("corrupt file")) << got;
  const std::string blob = cache / "models--org--wrong/blobs/" + std::string(64, '0');
  EXPECT_FALSE(fs::exists(blob));
  EXPECT_FALSE(fs::exists(blob + ".incomplete"));
}

TEST(Hub, TheTokenGoesToTheEndpointOnly) {
  const Server server;
  const TemporaryFolder cache;
  HubOptions options = server.options(cache.path());
  EXPECT_TRUE(outcome_of([&] { resolve_model("org/private", options); }).starts_with("invalid input"));
  EXPECT_TRUE(outcome_of([&] { resolve_model("org/absent", options); }).starts_with("invalid input"));
  options.token = "secret";
  const std::string path = resolve_model("org/gguf:Q8_0", options);
  EXPECT_TRUE(path.ends_with("/m-Q8_0.gguf")) << path;
  EXPECT_EQ(fs::file_size(path), 4000u);
  EXPECT_EQ(server.requests("HEAD 0 /org/gguf/resolve").size(), 1u);
  for (const std::string& line : server.requests(" 0 "))
    EXPECT_TRUE(line.ends_with("Bearer secret") || line.find("private") != line.npos || line.find("absent") != line.npos) << line;
  ASSERT_EQ(server.requests(" 1 ").size(), 1u);
  EXPECT_TRUE(server.requests(" 1 ")[0].ends_with(" -")) << server.requests(" 1 ")[0];
  // A relative redirect stays at the endpoint, with the token.
  const std::string renamed = resolve_model("org/renamed", options);
  EXPECT_EQ(read_text_file(renamed + "/config.json", 10), "{}");
  for (const std::string& line : server.requests("/org/plain/resolve")) EXPECT_TRUE(line.ends_with("Bearer secret")) << line;
}

TEST(Hub, TheEnvironmentIsRead) {
  const TemporaryFolder home;
  home.write("token", "from-file\n");
  ::setenv("HF_HOME", home.path().c_str(), 1);
  for (const char* name : {"HF_HUB_CACHE", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"}) ::unsetenv(name);
  HubOptions options = hub_options_from_environment();
  EXPECT_EQ(options.cache_dir, home / "hub");
  EXPECT_EQ(options.token, "from-file");
  EXPECT_FALSE(options.offline);
  ::setenv("HF_TOKEN", "given", 1);
  ::setenv("HF_HUB_OFFLINE", "1", 1);
  ::setenv("HF_ENDPOINT", "http://127.0.0.1:9/", 1);
  ::setenv("HF_HUB_CACHE", "/elsewhere", 1);
  options = hub_options_from_environment();
  EXPECT_EQ(options.token, "given");
  EXPECT_EQ(options.cache_dir, "/elsewhere");
  EXPECT_EQ(options.endpoint, "http://127.0.0.1:9");
  EXPECT_TRUE(options.offline);
  for (const char* name : {"HF_HOME", "HF_HUB_CACHE", "HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"}) ::unsetenv(name);
}

}  // namespace
}  // namespace frugal::io
