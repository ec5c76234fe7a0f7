#include "io/hub.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/options.h"
#include "base/progress.h"
#include "io/checkpoint.h"
#include "io/http_client.h"
#include "io/sha256.h"

namespace frugal::io {
namespace fs = std::filesystem;
namespace {

constexpr size_t kMaxListing = size_t{64} << 20;
constexpr int kMaxRedirects = 5;

bool has_only(std::string_view text, std::string_view punctuation) {
  return std::all_of(text.begin(), text.end(), [&](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || punctuation.find(c) != punctuation.npos;
  });
}

// One part of a path that we create: plain characters, not hidden, no "..".
bool is_plain_part(std::string_view text) {
  return !text.empty() && text.size() <= 200 && text.front() != '.' && text.find("..") == text.npos && has_only(text, "._-+= ()");
}

// Of sentence-transformers, the one file in a folder that belongs to a model: "1_Pooling/config.json".
bool is_pooling_config(const std::string& name) {
  constexpr std::string_view kFile = "/config.json";
  if (!name.ends_with(kFile)) return false;
  const std::string folder = name.substr(0, name.size() - kFile.size());
  return is_plain_part(folder) && folder.ends_with("_Pooling");
}

struct ModelName {
  std::string user, repository, quant;
  std::string full() const { return user + "/" + repository; }
};

ModelName parse_name(const std::string& spec) {
  ModelName name;
  const size_t slash = spec.find('/');
  const size_t colon = spec.find(':');
  if (slash != spec.npos) {
    name.user = spec.substr(0, slash);
    name.repository = spec.substr(slash + 1, colon == spec.npos ? colon : colon - slash - 1);
    if (colon != spec.npos) name.quant = spec.substr(colon + 1);
  }
  const bool good = is_plain_part(name.user) && is_plain_part(name.repository) && has_only(name.user, "._-") && has_only(name.repository, "._-") &&
                    (colon == spec.npos || (is_plain_part(name.quant) && has_only(name.quant, "._-")));
  if (!good) fail(ErrorKind::invalid_input, "\"{}\" is neither a path that exists nor a model name like user/repo or user/repo:Q4_K_M", printable(spec, 4096));
  return name;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return text;
}

// "-00001-of-00003.gguf" and what precedes it, or the whole name without ".gguf".
std::string without_shard(const std::string& name) {
  const std::string stem = name.substr(0, name.size() - 5);
  const size_t of = stem.rfind("-of-");
  if (of != stem.npos && of > 6 && has_only(stem.substr(of + 4), "") && stem[of - 6] == '-') return stem.substr(0, of - 6);
  return stem;
}

class Lock {
 public:
  explicit Lock(const std::string& path) : fd_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
    if (fd_ < 0) fail_errno("cannot open the lock", path);
    if (::flock(fd_, LOCK_EX) != 0) {
      ::close(fd_);
      fail_errno("cannot lock", path);
    }
  }
  ~Lock() { ::close(fd_); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  int fd_;
};

// The unfinished blob: bytes are appended, so that a later run goes on where this one stopped.
class PartialFile {
 public:
  explicit PartialFile(std::string path) : path_(std::move(path)), fd_(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
    if (fd_ < 0) fail_errno("cannot create", path_);
    size_ = static_cast<uint64_t>(::lseek(fd_, 0, SEEK_END));
  }
  ~PartialFile() { ::close(fd_); }
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;

  uint64_t size() const { return size_; }
  void restart() {
    if (::ftruncate(fd_, 0) != 0) fail_errno("cannot truncate", path_);
    ::lseek(fd_, 0, SEEK_SET);
    size_ = 0;
  }
  void append(std::span<const std::byte> bytes) {
    size_ += bytes.size();
    while (!bytes.empty()) {
      const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail_errno("cannot write", path_);
      bytes = bytes.subspan(static_cast<size_t>(written));
    }
  }
  void sync() {
    if (::fsync(fd_) != 0) fail_errno("cannot sync", path_);
  }

 private:
  std::string path_;
  int fd_;
  uint64_t size_ = 0;
};

struct RemoteFile {
  std::string url;  // where the bytes are, after redirects
  std::string etag;
  uint64_t size = 0;
};

class Hub {
 public:
  Hub(ModelName name, const HubOptions& options)
      : name_(std::move(name)), options_(options), folder_(fmt::format("{}/models--{}--{}", options.cache_dir, name_.user, name_.repository)) {
    if (origin_of(options_.endpoint).empty()) fail(ErrorKind::invalid_input, "\"{}\" is not an http or https endpoint", printable(options_.endpoint));
    if (!is_plain_part(options_.revision)) fail(ErrorKind::invalid_input, "\"{}\" is not a revision", printable(options_.revision));
  }

  std::string cached() const {
    std::error_code code;
    const std::string reference = folder_ + "/refs/" + options_.revision;
    const std::string commit = fs::exists(reference, code) ? read_text_file(reference, 200) : options_.revision;
    const std::string snapshot = folder_ + "/snapshots/" + commit;
    if (!is_plain_part(commit) || !fs::is_directory(snapshot, code)) {
      fail(ErrorKind::io, "{}: not in the cache {} (and the hub may not be asked: offline)", name_.full(), options_.cache_dir);
    }
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(snapshot)) {
      const std::string name = entry.path().filename().string();
      names.push_back(entry.is_directory() ? name + "/config.json" : name);
    }
    std::sort(names.begin(), names.end());
    const std::vector<std::string> files = wanted(names);
    if (files.empty()) fail(ErrorKind::io, "{}: the cache {} holds no file of it that fits {}", name_.full(), options_.cache_dir, name_.quant);
    return path_in(snapshot, files);
  }

  std::vector<std::string> wanted(const std::vector<std::string>& names) const {
    if (options_.file.empty()) return choose_files(names, name_.quant);
    std::vector<std::string> ggufs;
    std::copy_if(names.begin(), names.end(), std::back_inserter(ggufs), [](const std::string& name) { return is_plain_part(name) && name.ends_with(".gguf"); });
    if (std::find(ggufs.begin(), ggufs.end(), options_.file) == ggufs.end()) {
      fail(ErrorKind::invalid_input, "{}: has no GGUF file {}{}", name_.full(), printable(options_.file), did_you_mean(options_.file, ggufs));
    }
    std::erase_if(ggufs, [&](const std::string& name) { return without_shard(name) != without_shard(options_.file); });
    return ggufs;
  }

  std::string fetch() const {
    const auto [commit, names] = list();
    const std::vector<std::string> files = wanted(names);
    if (files.empty())
      fail(ErrorKind::invalid_input, "{}: has no GGUF and no safetensors file that fits{}", name_.full(), name_.quant.empty() ? "" : " " + name_.quant);
    const std::string snapshot = folder_ + "/snapshots/" + commit;
    for (const std::string& folder : {folder_ + "/refs", folder_ + "/blobs", snapshot, locks()}) fs::create_directories(folder);
    const std::string tag = options_.cache_dir + "/CACHEDIR.TAG";
    if (!fs::exists(tag)) {
      write_text_file(tag, "Signature: 8a477f597d28d172789f06886806bc55\n");
    }
    for (const std::string& file : files) fetch_file(commit, file, snapshot);
    AtomicFile reference(folder_ + "/refs/" + options_.revision);
    reference.write(commit);
    reference.commit();
    return path_in(snapshot, files);
  }

 private:
  std::string locks() const { return fmt::format("{}/.locks/models--{}--{}", options_.cache_dir, name_.user, name_.repository); }

  // The GGUF file (first shard) or the folder of a safetensors model.
  static std::string path_in(const std::string& snapshot, const std::vector<std::string>& files) {
    if (!files.empty() && files.front().ends_with(".gguf")) return snapshot + "/" + files.front();
    return snapshot;
  }

  // The token belongs to the endpoint; no other origin sees it.
  std::string token_for(const std::string& url) const { return origin_of(url) == origin_of(options_.endpoint) ? options_.token : ""; }

  std::string redirected(const std::string& url, const HttpResponse& response) const {
    const std::string next = resolve_location(url, response.header("location"));
    if (next.empty()) fail(ErrorKind::io, "{}: a redirect to \"{}\" is not followed", url, printable(response.header("location")));
    if (origin_of(url).starts_with("https:") && !origin_of(next).starts_with("https:"))
      fail(ErrorKind::io, "{}: a redirect from https to http is not followed", url);
    return next;
  }

  [[noreturn]] void fail_status(const std::string& url, int status) const {
    if (status == 404) fail(ErrorKind::invalid_input, "{}: the hub does not know it (404 for {})", name_.full(), url);
    if (status == 401 || status == 403) {
      fail(ErrorKind::invalid_input, "{}: the hub refuses access ({} for {}): the model does not exist, or is private or gated and needs HF_TOKEN",
           name_.full(), status, url);
    }
    fail(ErrorKind::io, "{}: status {}", url, status);
  }

  std::pair<std::string, std::vector<std::string>> list() const {
    std::string url = fmt::format("{}/api/models/{}/revision/{}", options_.endpoint, name_.full(), percent_encode(options_.revision));
    std::string text;
    for (int i = 0; i < kMaxRedirects; ++i) {
      text.clear();
      const HttpResponse response = http_request({url, false, token_for(url), 0}, [&](const HttpResponse&, std::span<const std::byte> piece) {
        if (text.size() + piece.size() > kMaxListing) fail(ErrorKind::corrupt_file, "{}: a listing of more than {} bytes", url, kMaxListing);
        text.append(reinterpret_cast<const char*>(piece.data()), piece.size());
      });
      if (response.status >= 300 && response.status < 400) {
        url = redirected(url, response);
        continue;
      }
      if (response.status != 200) fail_status(url, response.status);
      const Json json = parse_json(text, url);
      const JsonObject object(json, url);
      const std::string commit = object.text("sha");
      if (!is_plain_part(commit) || commit.size() > 64) object.fail_at("sha", "must be a commit");
      const Json* siblings = object.find("siblings");
      if (!siblings || !siblings->is_array()) object.fail_at("siblings", "must be an array");
      std::vector<std::string> names;
      for (const Json& sibling : *siblings) names.push_back(JsonObject(sibling, url + ".siblings").text("rfilename"));
      return {commit, names};
    }
    fail(ErrorKind::io, "{}: too many redirects", url);
  }

  // HEAD, following relative redirects; an absolute one says where the bytes are (a content store, which needs no token).
  RemoteFile locate(const std::string& commit, const std::string& file) const {
    RemoteFile remote;
    const size_t slash = file.find('/');
    const std::string path = slash == file.npos ? percent_encode(file) : percent_encode(file.substr(0, slash)) + "/" + percent_encode(file.substr(slash + 1));
    remote.url = fmt::format("{}/{}/resolve/{}/{}", options_.endpoint, name_.full(), commit, path);
    for (int i = 0; i < kMaxRedirects; ++i) {
      const HttpResponse response = http_request({remote.url, true, token_for(remote.url), 0});
      const bool redirect = response.status >= 300 && response.status < 400;
      if (!redirect && response.status != 200) fail_status(remote.url, response.status);
      const std::string& linked = response.header("x-linked-etag");
      std::string etag = linked.empty() ? response.header("etag") : linked;
      if (etag.starts_with("W/")) etag.erase(0, 2);
      std::erase(etag, '"');
      const std::string& linked_size = response.header("x-linked-size");
      const std::string& size = linked_size.empty() ? response.header("content-length") : linked_size;
      const std::string& location = response.header("location");
      if (redirect && origin_of(location).empty()) {
        remote.url = redirected(remote.url, response);
        continue;
      }
      if (!is_plain_part(etag) || !has_only(etag, "._-")) fail(ErrorKind::io, "{}: the hub gives no usable etag (\"{}\")", remote.url, printable(etag));
      remote.etag = etag;
      if (size.empty()) fail(ErrorKind::io, "{}: the hub gives no size", remote.url);
      const int64_t bytes = parse_integer(size, remote.url + ": size");
      if (bytes < 0) fail(ErrorKind::io, "{}: size {}", remote.url, bytes);
      remote.size = static_cast<uint64_t>(bytes);
      if (redirect) remote.url = redirected(remote.url, response);
      return remote;
    }
    fail(ErrorKind::io, "{}: too many redirects", remote.url);
  }

  void fetch_file(const std::string& commit, const std::string& file, const std::string& snapshot) const {
    const std::string link = snapshot + "/" + file;
    std::error_code code;
    if (fs::exists(link, code)) return;  // a snapshot is of one commit: what is there does not change
    const RemoteFile remote = locate(commit, file);
    const std::string blob = folder_ + "/blobs/" + remote.etag;
    const Lock lock(fmt::format("{}/{}.lock", locks(), remote.etag));
    if (!fs::exists(blob, code)) download(remote, blob, file);
    fs::remove(link, code);  // a link to a blob that was deleted
    const bool deeper = file.find('/') != file.npos;
    if (deeper) fs::create_directories(fs::path(link).parent_path());
    fs::create_symlink((deeper ? "../../../blobs/" : "../../blobs/") + remote.etag, link);
  }

  void download(const RemoteFile& remote, const std::string& blob, const std::string& file) const {
    const std::string partial_path = blob + ".incomplete";
    {
      PartialFile partial(partial_path);
      if (partial.size() > remote.size) partial.restart();
      Progress progress(fmt::format("download {}", file), static_cast<int64_t>(remote.size));
      progress.step(static_cast<int64_t>(partial.size()));
      for (int attempt = 0;; ++attempt) {
        try {
          transfer(remote, partial, progress);
          if (partial.size() == remote.size) break;
          fail(ErrorKind::io, "{}: {} of {} bytes arrived", remote.url, partial.size(), remote.size);
        } catch (const Error& error) {
          if (error.kind() != ErrorKind::io || attempt >= options_.retries) throw;
          log_warning("{}; trying again from byte {}", error.what(), partial.size());
        }
      }
      partial.sync();
    }
    const bool is_sha256 = remote.etag.size() == 64 && remote.etag.find_first_not_of("0123456789abcdef") == remote.etag.npos;
    if (is_sha256) {
      const std::string hash = sha256_hex(MappedFile::open(partial_path)->bytes());
      if (hash != remote.etag) {
        fs::remove(partial_path);
        fail(ErrorKind::corrupt_file, "{}: SHA-256 is {}, the hub says {}; what was downloaded is deleted", file, hash, remote.etag);
      }
    }
    fs::rename(partial_path, blob);
  }

  void transfer(const RemoteFile& remote, PartialFile& partial, Progress& progress) const {
    if (partial.size() == remote.size) return;
    std::string url = remote.url;
    for (int i = 0; i < kMaxRedirects; ++i) {
      const uint64_t begin = partial.size();
      bool first = true;
      const HttpResponse response = http_request({url, false, token_for(url), begin}, [&](const HttpResponse& answer, std::span<const std::byte> piece) {
        if (answer.status != 200 && answer.status != 206) return;  // the text of an error
        if (first && begin > 0) {
          const bool continues = answer.status == 206 && answer.header("content-range").starts_with(fmt::format("bytes {}-", begin));
          if (!continues) partial.restart();
        }
        first = false;
        if (piece.size() > remote.size - partial.size()) fail(ErrorKind::corrupt_file, "{}: more than the {} bytes that the hub promised", url, remote.size);
        partial.append(piece);
        progress.step(static_cast<int64_t>(piece.size()));
      });
      if (response.status >= 300 && response.status < 400) {
        url = redirected(url, response);
        continue;
      }
      if (response.status == 416) partial.restart();
      if (response.status != 200 && response.status != 206) fail(ErrorKind::io, "{}: status {}", url, response.status);
      return;
    }
    fail(ErrorKind::io, "{}: too many redirects", url);
  }

  ModelName name_;
  const HubOptions& options_;
  std::string folder_;
};

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

}  // namespace

HubOptions hub_options_from_environment() {
  HubOptions options;
  const std::string home = environment("HF_HOME").empty() ? environment("HOME") + "/.cache/huggingface" : environment("HF_HOME");
  options.cache_dir = environment("HF_HUB_CACHE").empty() ? home + "/hub" : environment("HF_HUB_CACHE");
  if (const std::string endpoint = environment("HF_ENDPOINT"); !endpoint.empty()) options.endpoint = endpoint;
  while (options.endpoint.ends_with('/')) options.endpoint.pop_back();
  const std::string offline = lower(environment("HF_HUB_OFFLINE"));
  options.offline = offline == "1" || offline == "true" || offline == "yes" || offline == "on";
  options.token = environment("HF_TOKEN");
  std::error_code code;
  if (options.token.empty() && fs::is_regular_file(home + "/token", code)) options.token = read_text_file(home + "/token", 4096);
  while (!options.token.empty() && (options.token.back() == '\n' || options.token.back() == '\r' || options.token.back() == ' ')) options.token.pop_back();
  if (!std::all_of(options.token.begin(), options.token.end(), [](char c) { return c > 0x20 && c < 0x7f; })) {
    fail(ErrorKind::invalid_input, "HF_TOKEN holds characters that a token cannot have");
  }
  return options;
}

std::vector<std::string> choose_files(const std::vector<std::string>& names, const std::string& quant) {
  std::vector<std::string> ggufs, others;
  bool safetensors = false;
  for (const std::string& name : names) {
    if (is_pooling_config(name)) others.push_back(name);
    if (!is_plain_part(name)) continue;  // other folders hold other things than the model
    if (name.ends_with(".gguf")) {
      if (!name.starts_with("mmproj") && lower(name).find("imatrix") == name.npos) ggufs.push_back(name);
      continue;
    }
    constexpr std::string_view kOthers[] = {"config.json", "frugal.json", "quantize_config.json", "modules.json", "sentence_bert_config.json"};
    const bool weights = name.starts_with("model") && (name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json"));
    safetensors |= weights;
    const bool wanted = std::find(std::begin(kOthers), std::end(kOthers), name) != std::end(kOthers) ||
                        std::find(std::begin(kTextFiles), std::end(kTextFiles), name) != std::end(kTextFiles);
    if (weights || wanted) others.push_back(name);
  }
  if (ggufs.empty() || (quant.empty() && safetensors)) return safetensors && quant.empty() ? others : std::vector<std::string>{};
  std::sort(ggufs.begin(), ggufs.end());
  const std::string wanted = lower(quant.empty() ? "Q4_K_M" : quant);
  auto chosen = std::find_if(ggufs.begin(), ggufs.end(), [&](const std::string& name) {
    const std::string stem = lower(without_shard(name));
    // The last word of the name: Q4_K is not Q4_K_M.
    const bool ends = stem.ends_with(wanted);
    const size_t at = stem.size() - wanted.size();
    return ends && (at == 0 || stem[at - 1] == '-' || stem[at - 1] == '.');
  });
  if (chosen == ggufs.end()) {
    if (!quant.empty()) return {};
    chosen = ggufs.begin();
  }
  const std::string model = without_shard(*chosen);
  std::vector<std::string> files;
  std::copy_if(ggufs.begin(), ggufs.end(), std::back_inserter(files), [&](const std::string& name) { return without_shard(name) == model; });
  return files;
}

std::string resolve_model(const std::string& spec, const HubOptions& options) {
  std::error_code code;
  if (fs::exists(spec, code)) return spec;
  const Hub hub(parse_name(spec), options);
  if (options.offline) return hub.cached();
  try {
    return hub.fetch();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::io) throw;
    std::string path;
    try {
      path = hub.cached();
    } catch (const Error&) {
      throw error;  // why the hub did not answer is what matters
    }
    log_warning("{}; using the copy in the cache", error.what());
    return path;
  }
}

}  // namespace frugal::io
