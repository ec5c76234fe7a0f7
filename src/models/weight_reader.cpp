#include "models/weight_reader.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include "base/checked.h"
#include "base/file.h"
#include "formats/format.h"
#include "io/quantized_layout.h"
#include "models/row_order.h"
#include "models/stored_kind.h"

namespace frugal::models {
namespace {

// Where multimodal checkpoints, and bases saved without their head, keep the text model.
constexpr std::string_view kPrefixes[] = {"model.", "language_model.model.", "model.language_model.", "bert.", ""};

std::string find_prefix(const io::Checkpoint& checkpoint) {
  for (const std::string_view prefix : kPrefixes) {
    for (const char* table : {"embed_tokens.", "embeddings.word_embeddings."}) {  // a decoder's, an encoder's
      const std::string start = std::string(prefix) + table;
      const auto it = checkpoint.tensors.lower_bound(start);
      if (it != checkpoint.tensors.end() && it->first.starts_with(start)) return std::string(prefix);
    }
  }
  return "model.";
}

void require_shape(const io::Checkpoint& checkpoint, const std::string& name, std::span<const int64_t> shape, std::span<const int64_t> wanted) {
  if (std::equal(shape.begin(), shape.end(), wanted.begin(), wanted.end())) return;
  fail(ErrorKind::corrupt_file, "{}: tensor {} is [{}], the configuration asks for [{}]", checkpoint.path, name, fmt::join(shape, ", "),
       fmt::join(wanted, ", "));
}

}  // namespace

WeightReader::WeightReader(std::shared_ptr<const io::Checkpoint> checkpoint, bool interleaved)
    : checkpoint_(std::move(checkpoint)), gguf_(checkpoint_->container == io::Container::gguf), interleaved_(gguf_ && interleaved) {
  if (!gguf_) prefix_ = find_prefix(*checkpoint_);
}

std::string WeightReader::file_name(const ModuleName& module) const {
  constexpr std::string_view kModel = "model.";
  if (gguf_) return module.gguf;
  return module.huggingface.starts_with(kModel) ? prefix_ + module.huggingface.substr(kModel.size()) : module.huggingface;
}

nn::Tensor WeightReader::vector(const ModuleName& module, std::string_view suffix, int64_t count) {
  const std::string name = file_name(module) + std::string(suffix);
  const TensorView& view = checkpoint_->at(name);
  used_.insert(file_name(module));
  require_shape(*checkpoint_, name, view.shape, std::array{count});
  const formats::Format& format = formats::format_at(view.format);
  if (format.block_weights != 1 || !format.decode)
    fail(ErrorKind::unsupported, "{}: tensor {} is stored as {}, must be floats", checkpoint_->path, name, view.format);
  nn::Tensor values = at::empty({count}, at::kFloat);
  format.decode(view.bytes.data(), values.mutable_data_ptr<float>(), count);
  return values;
}

std::shared_ptr<nn::LinearKind> WeightReader::plain_kind(const MatrixRequest& request) {
  const std::string name = file_name(request.name) + ".weight";
  const TensorView& view = checkpoint_->at(name);
  const auto [rows, columns] = request.shape;
  require_shape(*checkpoint_, name, view.shape, std::array{rows, columns});
  io::BlockWeight matrix{view.format, rows, columns, view.bytes, checkpoint_};
  std::function<nn::BlockKind::Source()> reread;
  if (interleaved_ && request.rotary_head_dim > 0) {
    reread = [file = checkpoint_, bytes = view.bytes, order = split_from_interleaved(rows, request.rotary_head_dim)] {
      auto copy = std::make_shared<std::vector<std::byte>>(bytes.size());
      reorder_rows(bytes, order, *copy);
      release_mapped(bytes);
      const std::span<const std::byte> reordered = *copy;
      return nn::BlockKind::Source{reordered, std::move(copy)};
    };
    const nn::BlockKind::Source source = reread();
    matrix.bytes = source.bytes;
    matrix.owner = source.owner;
  }
  return kind_of_matrix(fmt::format("{}: tensor {}", checkpoint_->path, name), matrix, matrix.owner, std::move(reread));
}

WeightReader::Kinds WeightReader::kinds(const MatrixRequest& request) {
  const std::string module = file_name(request.name);
  if (gguf_) return {plain_kind(request)};
  const std::optional<io::StoredWeight> stored = io::read_quantized(*checkpoint_, module);
  if (!stored) return {plain_kind(request)};
  for (const io::StoredTerm& term : stored->terms) {
    require_shape(*checkpoint_, module, std::array{io::rows_of(term), io::columns_of(term)}, std::array{request.shape.out, request.shape.in});
  }
  Kinds kinds = kinds_of(
      module, *stored, [checkpoint = checkpoint_, module] { return *io::read_quantized(*checkpoint, module); }, checkpoint_);
  // What the terms hold is copied, or read again when it is used.
  for (auto it = checkpoint_->tensors.lower_bound(module + "."); it != checkpoint_->tensors.end() && it->first.starts_with(module + "."); ++it) {
    release_mapped(it->second.bytes);
  }
  return kinds;
}

nn::Linear WeightReader::linear(const MatrixRequest& request) {
  Kinds parts = kinds(request);
  used_.insert(file_name(request.name));
  nn::Tensor bias;
  if (request.bias) {
    bias = vector(request.name, ".bias", request.shape.out);
    if (interleaved_ && request.rotary_head_dim > 0) {
      const std::vector<int64_t> order = split_from_interleaved(request.shape.out, request.rotary_head_dim);
      bias = bias.index_select(0, at::tensor(at::ArrayRef<int64_t>(order)));
    }
  }
  nn::Linear linear(request.name.huggingface, parts.front(), std::move(bias));
  linear.replace(std::move(parts));
  return linear;
}

std::vector<std::string> WeightReader::unused() const {
  std::vector<std::string> names;
  for (const auto& [name, view] : checkpoint_->tensors) {
    bool known = used_.contains(name);
    for (size_t dot = name.find('.'); dot != name.npos && !known; dot = name.find('.', dot + 1)) known = used_.contains(name.substr(0, dot));
    if (!known) names.push_back(name);
  }
  return names;
}

}  // namespace frugal::models
