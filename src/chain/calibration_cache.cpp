#include "chain/calibration_cache.h"

#include <ATen/ATen.h>
#include <unistd.h>

#include <filesystem>

#include "base/error.h"

namespace frugal::chain {
namespace {

Tensor spilled(const Tensor& tensor) {
  std::string path = (std::filesystem::temp_directory_path() / "frugal-calibration-XXXXXX").string();
  const int fd = ::mkstemp(path.data());
  if (fd < 0) fail_errno("cannot create a temporary file", path);
  ::close(fd);
  try {
    Tensor mapped = at::from_file(path, /*shared=*/true, tensor.numel(), at::kFloat).view(tensor.sizes());
    ::unlink(path.c_str());
    mapped.copy_(tensor);
    return mapped;
  } catch (const std::exception& error) {
    ::unlink(path.c_str());
    fail(ErrorKind::io, "{}: cannot keep calibration statistics: {}", path, error.what());
  }
}

}  // namespace

void CalibrationCache::spill(std::map<nn::InputPoint, InputStatistics>& statistics) {
  for (auto& [point, s] : statistics) {
    for (Tensor* tensor : {&s.hessian, &s.sample}) {
      if (tensor->defined()) *tensor = spilled(*tensor);
    }
  }
}

const CalibrationCache::Blocks* CalibrationCache::find(const std::string& prefix, unsigned needs) const {
  const auto it = entries_.find(prefix);
  return it != entries_.end() && (it->second.first & needs) == needs ? &it->second.second : nullptr;
}

void CalibrationCache::put(const std::string& prefix, unsigned needs, Blocks blocks) { entries_[prefix] = {needs, std::move(blocks)}; }

}  // namespace frugal::chain
