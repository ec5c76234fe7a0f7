#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "models/encoder.h"
#include "models/families.h"

namespace frugal::models {
namespace {

bool contains(const std::vector<std::string_view>& names, std::string_view name) { return std::find(names.begin(), names.end(), name) != names.end(); }

[[noreturn]] void fail_unknown(const std::string& where, std::string_view name, std::string_view (*known)(const Family&)) {
  std::vector<std::string_view> names;
  for (const Family& family : model_table()) {
    if (!contains(names, known(family))) names.push_back(known(family));
  }
  names.push_back(kEncoderType);
  fail(ErrorKind::unsupported, "{}: architecture \"{}\" is not supported (known: {})", where, printable(name), fmt::join(names, ", "));
}

std::string_view id_of(const Family& family) { return family.id; }
std::string_view gguf_architecture_of(const Family& family) { return family.gguf_architecture; }

}  // namespace

std::span<const Family> model_table() {
  static const std::vector<Family> table = {
      llama_family(),  // before mistral_family: GGUF calls both "llama"
      mistral_family(), qwen2_family(), qwen3_family(), gemma3_family(), bitnet_family(), mobilellm_family(), mobillama_family(), frugal_family(),
  };
  return table;
}

const Family& family_at(std::string_view id) {
  for (const Family& family : model_table()) {
    if (family.id == id) return family;
  }
  fail_unknown("model", id, id_of);
}

const Family& family_of_config(const JsonObject& config) {
  const std::string type = config.text_or("model_type", "");
  const std::vector<std::string> classes = config.has("architectures") ? config.texts("architectures") : std::vector<std::string>{};
  for (const Family& family : model_table()) {
    const bool named = type.empty() ? !classes.empty() && contains(family.architectures, classes[0]) : contains(family.model_types, type);
    if (named) return family;
  }
  fail_unknown(config.path() + ".model_type", type.empty() && !classes.empty() ? classes[0] : type, id_of);
}

const Family& family_of_gguf(const Metadata& metadata) {
  const std::string& architecture = metadata.text("general.architecture");
  for (const Family& family : model_table()) {
    if (family.gguf_architecture == architecture) return family;
  }
  fail_unknown(metadata.source() + ": key general.architecture", architecture, gguf_architecture_of);
}

}  // namespace frugal::models
