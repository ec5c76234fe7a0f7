// frugal inspect: what a file or directory holds, without loading it.
#include "base/error.h"
#include "cli/context.h"
#include "cli/resources.h"
#include "io/checkpoint.h"

namespace frugal::cli {
namespace {

struct InspectValues {
  std::string path;
  bool all = false;
};

Json metadata_json(const io::Checkpoint& checkpoint, bool all) {
  if (checkpoint.container == io::Container::huggingface) return checkpoint.config;
  // Collected first: an ordered object looks each assigned key up in linear time.
  std::vector<std::pair<std::string, Json>> members;
  for (const auto& [key, value] : checkpoint.metadata.values()) {
    members.emplace_back(key, std::visit(
                                  [&](const auto& held) -> Json {
                                    if constexpr (requires { held.size(); } && !std::is_same_v<std::decay_t<decltype(held)>, std::string>) {
                                      if (!all && held.size() > 32) return to_string(value);
                                      Json array = Json::array();
                                      for (const auto& item : held) array.push_back(item);
                                      return array;
                                    } else {
                                      return held;
                                    }
                                  },
                                  value));
  }
  return Json(Json::object_t(members.begin(), members.end()));
}

void run(const Context& context, const InspectValues& values) {
  const auto checkpoint = io::open_checkpoint(resolve_model_path(context, values.path));
  if (context.json) {
    Json tensors = Json::array();
    for (const auto& [name, view] : checkpoint->tensors) {
      tensors.push_back({{"name", name}, {"format", view.format}, {"shape", view.shape}, {"bytes", view.bytes.size()}});
    }
    print_json({{"container", checkpoint->container == io::Container::gguf ? "gguf" : "huggingface"},
                {"bytes", checkpoint->weight_bytes},
                {"metadata", metadata_json(*checkpoint, /*all=*/true)},
                {"manifest", checkpoint->manifest},
                {"tensors", tensors}});
    return;
  }
  std::string out =
      fmt::format("{}: {}, {} tensors, {:.1f} MB\n", checkpoint->path, checkpoint->container == io::Container::gguf ? "GGUF" : "Hugging Face directory",
                  checkpoint->tensors.size(), static_cast<double>(checkpoint->weight_bytes) / 1e6);
  const Json metadata = metadata_json(*checkpoint, values.all);
  for (const auto& [key, value] : metadata.items()) {
    std::string text = value.is_string() ? value.get<std::string>() : value.dump(-1, ' ', false, Json::error_handler_t::replace);
    out += fmt::format("  {} = {}\n", printable(key, 200), printable(text, values.all ? SIZE_MAX : 100));
  }
  for (const auto& [name, view] : checkpoint->tensors) {
    out += fmt::format("  {:<48} {:<8} [{}] {:.2f} MB\n", printable(name, 200), view.format, fmt::join(view.shape, ", "),
                       static_cast<double>(view.bytes.size()) / 1e6);
  }
  print(out);
}

}  // namespace

void add_inspect(CLI::App& app, Context& context) {
  const auto values = std::make_shared<InspectValues>();
  new_verb(app, context, "inspect", "Show the metadata and tensors of a model file or directory", [&context, values] { run(context, *values); })
      .text("path", values->path, "GGUF file, directory or hub name")
      .required()
      .flag("--all", values->all, "Long values and arrays whole");
}

}  // namespace frugal::cli
