// Models by name: a local path, or "user/repo[:quant]" downloaded from the Hugging Face hub into its cache layout, so that
// every tool that knows the cache finds them:
//   <cache>/models--user--repo/{refs/<revision>, blobs/<etag>, snapshots/<commit>/<file> -> ../../blobs/<etag>}
#pragma once

#include <string>
#include <vector>

namespace frugal::io {

struct HubOptions {
  bool offline = false;  // only what the cache holds
  std::string token;
  std::string file;  // this GGUF file of the repository (with its shards), whatever the quant
  std::string endpoint = "https://huggingface.co";
  std::string revision = "main";
  std::string cache_dir;
  int retries = 3;  // for each file, after a transfer was cut
};

// HF_HUB_OFFLINE, HF_TOKEN (or the file token in HF_HOME), HF_ENDPOINT, HF_HUB_CACHE (or HF_HOME/hub, or
// ~/.cache/huggingface/hub).
HubOptions hub_options_from_environment();

// A path that open_checkpoint takes. An existing path is given back as it is. Of a repository with GGUF files the one with
// the quant (default Q4_K_M, else the first) is fetched, with all its shards; else config, tokenizer and safetensors.
// A cut download is kept as <etag>.incomplete and resumed. Throws Error{invalid_input} for a bad name or an unknown
// repository, Error{io} for the network, Error{corrupt_file} when size or SHA-256 do not match (the file is deleted).
std::string resolve_model(const std::string& spec, const HubOptions& options);

// Which files of a repository resolve_model fetches. Exposed for tests.
std::vector<std::string> choose_files(const std::vector<std::string>& names, const std::string& quant);

}  // namespace frugal::io
