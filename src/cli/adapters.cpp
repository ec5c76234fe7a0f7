#include "cli/adapters.h"

#include <filesystem>

#include "base/error.h"
#include "tune/adapter.h"

namespace frugal::cli {
namespace fs = std::filesystem;
namespace {

struct ScaledAdapter {
  std::string path;
  double scale = 1;
};

void for_each_part(const std::vector<std::string>& texts, const std::function<void(const std::string&)>& use) {
  for (const std::string& text : texts) {
    for (size_t begin = 0; begin <= text.size();) {
      const size_t end = std::min(text.find(',', begin), text.size());
      if (end > begin) use(text.substr(begin, end - begin));
      begin = end + 1;
    }
  }
}

std::vector<ScaledAdapter> adapters_of(const AdapterValues& values) {
  std::vector<ScaledAdapter> result;
  for_each_part(values.paths, [&](const std::string& path) { result.push_back({path}); });
  for_each_part(values.scaled, [&](const std::string& text) {
    const size_t colon = text.rfind(':');
    if (colon == std::string::npos || colon == 0)
      fail(ErrorKind::invalid_input, "--lora-scaled {}: must be the path of an adapter, a colon and a number", printable(text));
    result.push_back({text.substr(0, colon), parse_number(text.substr(colon + 1), "--lora-scaled: the scale")});
  });
  if (result.empty() && !values.empty()) fail(ErrorKind::invalid_input, "--lora names no adapter");
  return result;
}

}  // namespace

void add_adapter_options(Verb& verb, AdapterValues& values) {
  verb.texts("--lora", values.paths, "Adapter of peft, a directory with adapter_config.json; several separated by commas, or repeated")
      .texts("--lora-scaled", values.scaled, "The same as PATH:SCALE, its change of the weights times SCALE");
}

void attach_adapters(const AdapterValues& values, nn::LoadedModel& model, nn::Execution execution) {
  const std::vector<ScaledAdapter> adapters = adapters_of(values);
  if (adapters.empty()) return;
  if (!model.model) fail(ErrorKind::unsupported, "{}: an encoder, which takes no adapter", model.name);
  for (const ScaledAdapter& adapter : adapters) {
    tune::load_adapter(*model.model, adapter.path, adapter.scale);
    model.file_bytes += fs::file_size(fs::path(adapter.path) / "adapter_model.safetensors");
  }
  model.model->set_execution(execution);
}

std::vector<std::string> runtime_settings(const AdapterValues& values) {
  std::vector<std::string> settings;
  for (const ScaledAdapter& adapter : adapters_of(values)) {
    const fs::path path = fs::path(adapter.path).lexically_normal();
    const std::string name = (path.has_filename() ? path : path.parent_path()).filename().string();
    settings.push_back(adapter.scale == 1 ? fmt::format("lora:{}", name) : fmt::format("lora:{},scale={}", name, adapter.scale));
  }
  return settings;
}

}  // namespace frugal::cli
