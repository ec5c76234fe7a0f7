#include "tune/adapter_sites.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "base/error.h"
#include "tune/target_modules.h"

namespace frugal::tune {
namespace {

using io::PeftConfig;
using io::PeftType;
using nn::Linear;

class Attacher {
 public:
  Attacher(nn::Model& model, const PeftConfig& config, AdapterTensors& tensors, const AttachOptions& options)
      : model_(model), config_(config), tensors_(tensors), options_(options), modules_(config, options.source) {
    if (config.dropout > 0) dropout_ = std::make_shared<nn::AdapterDropout>(config.dropout, options.dropout_seed);
  }

  std::unique_ptr<Adapter> run() {
    const at::NoGradGuard no_grad;
    if (options_.scale != 1 && (config_.type != PeftType::lora || config_.dora))
      fail(ErrorKind::unsupported, "{}: only a plain LoRA can be scaled, this is {}", options_.source, config_.dora ? "DoRA" : io::to_string(config_.type));
    if (io::is_soft_prompt(config_.type)) return run_soft_prompt();
    const std::vector<Linear*> linears = modules_.find(model_);
    if (config_.type == PeftType::vera) take_projections(linears);
    std::vector<AdapterSite> sites;
    for (Linear* linear : linears) sites.push_back({linear, linear->kinds(), linear->bias(), make(*linear)});
    tensors_.finish();
    for (const AdapterSite& site : sites) require_room(site);
    for (const AdapterSite& site : sites) put(site);
    return std::make_unique<Adapter>(model_, scaled_config(), std::move(sites), dropout_, std::move(shared_));
  }

 private:
  std::unique_ptr<Adapter> run_soft_prompt() {
    PeftConfig config = checked_soft_prompt(model_, config_, options_.source);
    const bool prefix = config.type == PeftType::prefix_tuning;
    const int64_t width = prefix ? prefix_width(model_, options_.source) : model_.spec.hidden;
    Tensor rows = tensors_.take_shared(io::kPromptEmbeddings, {config.virtual_tokens, width});
    tensors_.finish();
    return std::make_unique<Adapter>(model_, std::move(config), prefix ? prefix_tables(std::move(rows)) : prompt_rows(std::move(rows)));
  }

  using Kinds = std::vector<std::shared_ptr<nn::LinearKind>>;

  std::shared_ptr<nn::AdapterKind> make(const Linear& linear) {
    switch (config_.type) {
      case PeftType::lora: return make_lora(linear);
      case PeftType::ia3: return make_ia3(linear);
      case PeftType::vera: return make_vera(linear);
      case PeftType::bottleneck: return make_bottleneck(linear);
      case PeftType::adalora: return make_adalora(linear);
      case PeftType::prompt_tuning:
      case PeftType::prefix_tuning: break;
    }
    return nullptr;
  }

  Tensor trained(const Linear& linear, std::string_view part, at::IntArrayRef shape) { return tensors_.take(linear, part, shape).set_requires_grad(true); }

  std::shared_ptr<nn::AdapterKind> make_lora(const Linear& linear) {
    const int64_t rank = modules_.rank(linear.name());
    const double scale = modules_.scale(linear.name()) * options_.scale;
    const int64_t group = std::max<int64_t>(1, config_.qalora_group_size);
    if (linear.in_features() % group != 0) {
      fail(ErrorKind::invalid_input, "{}: {} has {} inputs, which groups of {} do not divide", options_.source, linear.name(), linear.in_features(), group);
    }
    Tensor a = trained(linear, ".lora_A.weight", {rank, linear.in_features() / group});
    if (options_.freeze_a) a.set_requires_grad(false);
    Tensor b = trained(linear, ".lora_B.weight", {linear.out_features(), rank});
    if (!config_.dora) return std::make_shared<nn::LoraKind>(std::move(a), std::move(b), scale, dropout_, group);
    Tensor magnitude = trained(linear, ".lora_magnitude_vector", {linear.out_features()});
    return std::make_shared<nn::DoraKind>(linear.kinds(), std::move(a), std::move(b), std::move(magnitude), scale, dropout_);
  }

  std::shared_ptr<nn::AdapterKind> make_adalora(const Linear& linear) {
    const auto kept = std::ranges::find(config_.kept_ranks, linear.name() + ".lora_E", &std::pair<std::string, std::vector<bool>>::first);
    const int64_t rank = kept == config_.kept_ranks.end() ? config_.rank : std::ranges::count(kept->second, true);
    Tensor a = trained(linear, ".lora_A", {rank, linear.in_features()}), b = trained(linear, ".lora_B", {linear.out_features(), rank});
    Tensor e = trained(linear, ".lora_E", {rank, 1});
    const auto initial = static_cast<double>(config_.rank);
    const double scale = (config_.alpha > 0 ? config_.alpha : initial) / (initial + 1e-5);  // as the format's own implementation
    return std::make_shared<nn::AdaLoraKind>(std::move(a), std::move(b), std::move(e), scale, dropout_);
  }

  std::shared_ptr<nn::AdapterKind> make_ia3(const Linear& linear) {
    using Place = nn::Ia3Kind::Place;
    if (modules_.scales_input(linear.name()))
      return std::make_shared<nn::Ia3Kind>(linear.kinds(), trained(linear, ".ia3_l", {1, linear.in_features()}), Place::input);
    return std::make_shared<nn::Ia3Kind>(linear.kinds(), trained(linear, ".ia3_l", {linear.out_features(), 1}), Place::output, linear.bias());
  }

  // As large as the largest module needs; each takes a part.
  void take_projections(const std::vector<Linear*>& linears) {
    int64_t in = 0, out = 0;
    for (const Linear* linear : linears) {
      in = std::max(in, linear->in_features());
      out = std::max(out, linear->out_features());
    }
    shared_.emplace_back("vera_A", tensors_.take_shared("vera_A", {config_.rank, in}));
    shared_.emplace_back("vera_B", tensors_.take_shared("vera_B", {out, config_.rank}));
  }

  std::shared_ptr<nn::AdapterKind> make_vera(const Linear& linear) {
    return std::make_shared<nn::VeraKind>(shared_[0].second.narrow(1, 0, linear.in_features()).contiguous(),
                                          shared_[1].second.narrow(0, 0, linear.out_features()), trained(linear, ".vera_lambda_d", {config_.rank}),
                                          trained(linear, ".vera_lambda_b", {linear.out_features()}), dropout_);
  }

  // Serial ones stand behind a module; before gate and up, which would otherwise have one each behind them.
  std::shared_ptr<nn::AdapterKind> make_bottleneck(const Linear& linear) {
    using Kind = nn::BottleneckKind;
    const bool before = linear.name().ends_with(".gate_proj") || linear.name().ends_with(".up_proj");
    const Kind::Place place = config_.parallel ? Kind::Place::parallel : before ? Kind::Place::input : Kind::Place::output;
    const auto function = std::ranges::find(io::kBottleneckActivations, config_.activation) - std::begin(io::kBottleneckActivations);
    const int64_t in = place == Kind::Place::output ? linear.out_features() : linear.in_features();
    const int64_t out = place == Kind::Place::input ? linear.in_features() : linear.out_features();
    Tensor down = trained(linear, ".adapter_down.weight", {config_.rank, in}), up = trained(linear, ".adapter_up.weight", {out, config_.rank});
    return std::make_shared<Kind>(linear.kinds(), std::move(down), std::move(up), Kind::Form{place, static_cast<Kind::Function>(function), config_.scaling},
                                  dropout_, place == Kind::Place::output ? linear.bias() : Tensor());
  }

  // Summands go together; what stands around others would have to say around which.
  void require_room(const AdapterSite& site) const {
    for (const auto& kind : site.before) {
      const auto* other = dynamic_cast<const nn::AdapterKind*>(kind.get());
      if (!other || !(other->wraps() || site.kind->wraps())) continue;
      fail(ErrorKind::unsupported, "{}: {} has an adapter already ({}); more than one goes together for LoRA only", options_.source, site.linear->name(),
           kind->describe());
    }
  }

  static void put(const AdapterSite& site) {
    if (!site.kind->wraps()) {
      Kinds kinds = site.before;
      kinds.push_back(site.kind);
      site.linear->replace(std::move(kinds));
      return;
    }
    site.linear->replace(site.kind);
    if (static_cast<const nn::WrappingKind&>(*site.kind).holds_bias()) site.linear->mutable_bias() = Tensor();
  }

  PeftConfig scaled_config() const {
    PeftConfig config = config_;
    config.alpha *= options_.scale;
    for (auto& [pattern, alpha] : config.alpha_pattern) alpha *= options_.scale;
    return config;
  }

  nn::Model& model_;
  const PeftConfig& config_;
  AdapterTensors& tensors_;
  const AttachOptions& options_;
  TargetModules modules_;
  std::shared_ptr<nn::AdapterDropout> dropout_;
  std::vector<std::pair<std::string, Tensor>> shared_;
};

// peft draws VeRA's matrices from projection_prng_key, and so do we: a file may leave them out.
Tensor projection(at::IntArrayRef shape, at::Generator& generator) {
  const double bound = std::sqrt(6.0 / static_cast<double>(shape[1]));  // Kaiming's, for a rectifier
  return at::empty(shape, at::kFloat).uniform_(-bound, bound, generator);
}

class NewTensors : public AdapterTensors {
 public:
  NewTensors(const PeftConfig& config, uint64_t seed)
      : generator_(at::detail::createCPUGenerator(seed)), projection_(at::detail::createCPUGenerator(config.projection_key)) {}

  Tensor take(const Linear& linear, std::string_view part, at::IntArrayRef shape) override {
    if (part == ".lora_A.weight" || part == ".adapter_down.weight") {
      const double bound = 1 / std::sqrt(static_cast<double>(shape[1]));  // Kaiming's with a = sqrt(5)
      return at::empty(shape, at::kFloat).uniform_(-bound, bound, generator_);
    }
    if (part == ".lora_B.weight" || part == ".vera_lambda_b" || part == ".adapter_up.weight") return at::zeros(shape, at::kFloat);
    if (part == ".vera_lambda_d") return at::full(shape, 0.1, at::kFloat);
    if (part == ".lora_A" || part == ".lora_B") return at::randn(shape, generator_, at::kFloat).mul_(0.02);
    if (part == ".lora_E") return at::zeros(shape, at::kFloat);
    if (part == ".ia3_l") return at::ones(shape, at::kFloat);
    FRUGAL_ASSERT(part == ".lora_magnitude_vector");
    return linear.dense().norm(2, {1});
  }
  Tensor take_shared(std::string_view, at::IntArrayRef shape) override { return projection(shape, projection_); }

 private:
  at::Generator generator_, projection_;
};

// Those of a file, each checked: of the right shape, finite, and all of them used.
class FileTensors : public AdapterTensors {
 public:
  explicit FileTensors(const io::PeftAdapter& adapter) : adapter_(adapter), projection_(at::detail::createCPUGenerator(adapter.config.projection_key)) {
    for (const auto& [name, view] : adapter.tensors) unused_.insert(name);
  }

  Tensor take(const Linear& linear, std::string_view part, at::IntArrayRef shape) override { return read(linear.name() + std::string(part), shape); }

  Tensor take_shared(std::string_view name, at::IntArrayRef shape) override {
    if (adapter_.tensors.contains(name) || name == io::kPromptEmbeddings) return read(std::string(name), shape);
    if (adapter_.config.save_projection) fail(ErrorKind::corrupt_file, "{}: tensor {} is missing, though save_projection says it is here", adapter_.path, name);
    return projection(shape, projection_);
  }

  void finish() override {
    if (unused_.empty()) return;
    for (const std::string& name : unused_) {
      // Of embed_tokens as a target, or what peft saves along when the head is one.
      const bool whole = name.ends_with(".base_layer.weight") || name == "model.embed_tokens.weight" || name == "lm_head.weight";
      if (!whole && name.find(".lora_embedding_") == name.npos) continue;
      fail(ErrorKind::unsupported, "{}: tensor {}: {}", adapter_.path, printable(name, 200),
           whole ? "a whole weight beside the adapter is not supported (peft leaves it out with save_embedding_layers=False)"
                 : "an adapter at an embedding is not supported");
    }
    fail(ErrorKind::corrupt_file,
         "{}: {} of the tensors belong to no module of the model that the configuration means, {} the first of them; is the adapter for another model?",
         adapter_.path, unused_.size(), printable(*unused_.begin(), 200));
  }

 private:
  Tensor read(const std::string& name, at::IntArrayRef shape) {
    const auto it = adapter_.tensors.find(name);
    if (it == adapter_.tensors.end())
      fail(ErrorKind::corrupt_file, "{}: tensor {} is missing, which {} means", adapter_.path, name,
           name == io::kPromptEmbeddings ? "peft_type" : "target_modules");
    unused_.erase(it->first);
    const TensorView& view = it->second;
    if (at::IntArrayRef(view.shape) != shape) {
      const bool transposed = shape.size() == 2 && view.shape == std::vector{shape[1], shape[0]};
      fail(ErrorKind::corrupt_file, "{}: tensor {}: has the shape [{}], must have [{}]: {}", adapter_.path, name, fmt::join(view.shape, ", "),
           fmt::join(shape, ", "), transposed ? "it is transposed" : "the adapter is for another model, or its rank is not what the configuration says");
    }
    const auto type = view.format == "F32" ? at::kFloat : view.format == "F16" ? at::kHalf : at::kBFloat16;
    if (type == at::kBFloat16 && view.format != "BF16")
      fail(ErrorKind::unsupported, "{}: tensor {}: {} is none of F32, F16 and BF16", adapter_.path, name, view.format);
    Tensor stored = at::empty(shape, type);  // a copy: the file's may lie misaligned
    std::memcpy(stored.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
    Tensor values = stored.to(at::kFloat);
    if (!values.isfinite().all().item<bool>()) fail(ErrorKind::corrupt_file, "{}: tensor {}: holds a number that is not finite", adapter_.path, name);
    return values;
  }

  const io::PeftAdapter& adapter_;
  at::Generator projection_;
  std::set<std::string, std::less<>> unused_;
};

}  // namespace

std::unique_ptr<Adapter> attach(nn::Model& model, const PeftConfig& config, AdapterTensors& tensors, const AttachOptions& options) {
  return Attacher(model, config, tensors, options).run();
}

void require_known_targets(nn::Model& model, const PeftConfig& config, const std::string& method) {
  const std::vector<std::string> unknown = TargetModules(config, method).unknown(model);
  if (!unknown.empty()) {
    std::set<std::string> parts;
    for (const Linear* linear : all_linears(model)) parts.insert(linear->name().substr(linear->name().rfind('.') + 1));
    fail(ErrorKind::invalid_input, "{}: target: the model has no module \"{}\"{}", method, printable(unknown.front()),
         did_you_mean(unknown.front(), {parts.begin(), parts.end()}));
  }
}

std::unique_ptr<Adapter> attach_new(nn::Model& model, const PeftConfig& config, const std::string& method, uint64_t seed, bool freeze_a) {
  require_known_targets(model, config, method);
  NewTensors tensors(config, seed);
  return attach(model, config, tensors, {.source = method, .freeze_a = freeze_a, .dropout_seed = seed + 1});
}

std::unique_ptr<Adapter> load_adapter(nn::Model& model, const std::string& path, double scale, uint64_t seed) {
  const io::PeftAdapter adapter = io::read_peft(path);
  FileTensors tensors(adapter);
  return attach(model, adapter.config, tensors, {.source = path + "/adapter_config.json", .scale = scale, .dropout_seed = seed});
}

OptionSpec target_option(std::string fallback) {
  return text_option("target", std::move(fallback),
                     "modules: all-linear (all but the head), names or their ends joined by + or commas, or re: and a regular expression over whole names");
}

io::ModuleSelection target_of(const std::string& text) {
  io::ModuleSelection selection;
  if (text == "all-linear") {
    selection.all_linear = true;
  } else if (text.starts_with("re:")) {
    selection.regex = text.substr(3);
  } else {
    for (size_t begin = 0; begin <= text.size();) {
      const size_t end = std::min(text.find_first_of("+, ", begin), text.size());
      if (end > begin) selection.names.push_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  if (selection.empty()) fail(ErrorKind::invalid_input, "target: names no module");
  return selection;
}

std::vector<OptionSpec> lora_options() {
  return {integer_option("r", 8, 1, io::kMaxAdapterRank, "rank"), number_option("alpha", 8, 0, 1e6, "what the product is multiplied with, over the rank"),
          number_option("dropout", 0, 0, 0.99, "share of the adapter's inputs that is dropped in training"),
          boolean_option("rslora", false, "alpha over the root of the rank instead (arXiv 2312.03732)"), target_option("all-linear")};
}

PeftConfig lora_config(const Options& options) {
  PeftConfig config;
  config.rank = options.integer("r");
  config.alpha = options.number("alpha");
  config.dropout = options.number("dropout");
  config.rslora = options.boolean("rslora");
  config.target_modules = target_of(options.text("target"));
  return config;
}

}  // namespace frugal::tune
