#include "models/stored_kind.h"

#include <ATen/ATen.h>

#include "base/error.h"

namespace frugal::models {
namespace {

using formats::ActivationQuant;
using nn::LinearKind;

std::optional<at::ScalarType> float_type(std::string_view format) {
  if (format == "F32") return at::kFloat;
  if (format == "F16") return at::kHalf;
  if (format == "BF16") return at::kBFloat16;
  return std::nullopt;
}

template <typename Value>
const std::shared_ptr<const Value>& held(const io::StoredTerm& term) {
  return std::get<std::shared_ptr<const Value>>(term.value);
}

using Reread = std::function<io::StoredTerm()>;

std::shared_ptr<LinearKind> kind_of(const std::string& name, const io::StoredTerm& term, const ActivationQuant& activation,
                                    const std::shared_ptr<const void>& owner, const Reread& reread) {
  if (const auto* matrix = std::get_if<io::BlockWeight>(&term.value)) return kind_of_matrix(name, *matrix, matrix->owner ? matrix->owner : owner);
  if (const auto* low_rank = std::get_if<io::LowRankWeight>(&term.value)) {
    const auto factor = [&](std::shared_ptr<const io::StoredTerm> io::LowRankWeight::*member) {
      return kind_of(name, *(low_rank->*member), activation, owner, [reread, member] { return *(std::get<io::LowRankWeight>(reread().value).*member); });
    };
    return std::make_shared<nn::LowRankKind>(factor(&io::LowRankWeight::first), factor(&io::LowRankWeight::second));
  }
  if (std::holds_alternative<std::shared_ptr<const formats::GroupedWeight>>(term.value)) {
    return std::make_shared<nn::GroupedKind>(held<formats::GroupedWeight>(term), activation, [reread] { return held<formats::GroupedWeight>(reread()); });
  }
  if (std::holds_alternative<std::shared_ptr<const formats::SparseWeight>>(term.value)) {
    return std::make_shared<nn::SparseKind>(held<formats::SparseWeight>(term), activation);
  }
  io::StoredTerm kept = term;
  if (std::holds_alternative<std::shared_ptr<const io::Fp8Weight>>(term.value)) {
    auto copy = std::make_shared<io::Fp8Weight>(*held<io::Fp8Weight>(term));
    if (!copy->owner) copy->owner = owner;
    kept.value = std::shared_ptr<const io::Fp8Weight>(std::move(copy));
  }
  return std::make_shared<StoredKind>(std::move(kept));
}

io::StoredTerm term_of(const std::string& name, const std::shared_ptr<LinearKind>& kind) {
  if (const auto* dense = dynamic_cast<const nn::DenseKind*>(kind.get())) {
    const at::Tensor& weight = dense->weight();
    const auto* data = static_cast<const std::byte*>(weight.const_data_ptr());
    return {io::BlockWeight{dense->describe(), weight.size(0), weight.size(1), {data, weight.nbytes()}, kind}};
  }
  if (const auto* block = dynamic_cast<const nn::BlockKind*>(kind.get())) {
    return {io::BlockWeight{std::string(block->format().id), block->out_features(), block->in_features(), block->bytes(), kind}};
  }
  if (const auto* grouped = dynamic_cast<const nn::GroupedKind*>(kind.get())) return {grouped->weight()};
  if (const auto* sparse = dynamic_cast<const nn::SparseKind*>(kind.get())) return {sparse->weight()};
  if (const auto* stored = dynamic_cast<const StoredKind*>(kind.get())) return stored->term();
  if (const auto* low_rank = dynamic_cast<const nn::LowRankKind*>(kind.get())) {
    return {io::LowRankWeight{std::make_shared<const io::StoredTerm>(term_of(name, low_rank->first())),
                              std::make_shared<const io::StoredTerm>(term_of(name, low_rank->second()))}};
  }
  fail(ErrorKind::unsupported, "{}: a weight of kind {} cannot be stored", name, kind->describe());
}

ActivationQuant activation_of(const std::string& name, const LinearKind& kind) {
  const auto* low_rank = dynamic_cast<const nn::LowRankKind*>(&kind);
  if (!low_rank) return kind.activation();
  const ActivationQuant first = activation_of(name, *low_rank->first());
  if (first != activation_of(name, *low_rank->second()))
    fail(ErrorKind::unsupported, "{}: factors whose inputs are quantized differently cannot be stored", name);
  return first;
}

}  // namespace

std::string StoredKind::describe() const {
  if (const auto* fp8 = std::get_if<std::shared_ptr<const io::Fp8Weight>>(&term_.value)) {
    return fmt::format("FP8 E4M3 {}x{}", (*fp8)->block_rows, (*fp8)->block_columns);
  }
  if (const auto* codebook = std::get_if<std::shared_ptr<const io::CodebookWeight>>(&term_.value)) return fmt::format("NF4 b{}", (*codebook)->block);
  return "stored";
}

uint64_t StoredKind::storage_bytes() const {
  const auto scales = [](const auto& weight) {
    return static_cast<uint64_t>(weight.scales.size()) * static_cast<uint64_t>(formats::format_at(weight.scale_format).block_bytes);
  };
  if (const auto* fp8 = std::get_if<std::shared_ptr<const io::Fp8Weight>>(&term_.value)) return (*fp8)->codes.size() + scales(**fp8);
  const auto& codebook = held<io::CodebookWeight>(term_);
  return codebook->codes.size() + scales(*codebook);
}

std::shared_ptr<LinearKind> kind_of_matrix(const std::string& name, const io::BlockWeight& matrix, std::shared_ptr<const void> owner,
                                           std::function<nn::BlockKind::Source()> reread) {
  const formats::Format& format = formats::format_at(matrix.format);
  if (const std::optional<at::ScalarType> type = float_type(matrix.format)) {
    // Mapped copy-on-write (base/file.h), so that a write through the tensor stays private.
    void* data = const_cast<std::byte*>(matrix.bytes.data());
    return std::make_shared<nn::DenseKind>(at::from_blob(
        data, {matrix.rows, matrix.columns}, [owner = std::move(owner)](void*) {}, at::TensorOptions(*type)));
  }
  if (format.block_weights > 1 && format.decode) {
    return std::make_shared<nn::BlockKind>(format, nn::BlockKind::Source{matrix.bytes, std::move(owner)}, matrix.rows, matrix.columns, std::move(reread));
  }
  fail(ErrorKind::unsupported, "{}: a weight in {} is neither floats nor blocks that can be decoded", name, matrix.format);
}

std::vector<std::shared_ptr<LinearKind>> kinds_of(const std::string& name, const io::StoredWeight& weight, const std::function<io::StoredWeight()>& reread,
                                                  const std::shared_ptr<const void>& owner) {
  std::vector<std::shared_ptr<LinearKind>> kinds;
  for (size_t i = 0; i < weight.terms.size(); ++i) {
    kinds.push_back(kind_of(name, weight.terms[i], weight.activation, owner, [reread, i] { return reread().terms[i]; }));
  }
  return kinds;
}

io::StoredWeight stored_weight(const std::string& name, const std::vector<std::shared_ptr<LinearKind>>& kinds) {
  io::StoredWeight weight;
  weight.activation = activation_of(name, *kinds.front());
  for (const auto& kind : kinds) {
    if (activation_of(name, *kind) != weight.activation)
      fail(ErrorKind::unsupported, "{}: terms whose inputs are quantized differently cannot be stored", name);
    weight.terms.push_back(term_of(name, kind));
  }
  return weight;
}

}  // namespace frugal::models
