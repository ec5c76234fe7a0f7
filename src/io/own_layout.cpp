// frugal's own layout of weights: what compressed-tensors cannot express. See quantized_layout.h for the names.
#include <algorithm>
#include <bit>

#include "base/checked.h"
#include "formats/format.h"
#include "io/quantized_readers.h"

namespace frugal::io {
namespace {

using formats::ActivationQuant;
using formats::GroupedWeight;
using formats::SparseWeight;

constexpr int kMaxFactorDepth = 4;

// ---- writing --------------------------------------------------------------------------------------------------------

class Describer {
 public:
  explicit Describer(std::vector<TensorToWrite>& tensors) : tensors_(tensors) {}

  Json term(const StoredTerm& term, const std::string& prefix) {
    return std::visit([&](const auto& held) { return describe(held, prefix); }, term.value);
  }

 private:
  void add(const std::string& name, std::string format, std::vector<int64_t> shape, std::function<void(std::span<std::byte>)> fill) {
    tensors_.push_back({name, std::move(format), std::move(shape), std::move(fill), {}, {}});
  }
  void add_view(const std::string& name, std::string format, std::vector<int64_t> shape, std::span<const std::byte> bytes, std::shared_ptr<const void> owner) {
    tensors_.push_back({name, std::move(format), std::move(shape), {}, bytes, std::move(owner)});
  }

  Json describe(const BlockWeight& weight, const std::string& prefix) {
    const formats::Format& format = formats::format_at(weight.format);
    if (!format.safetensors.empty()) {
      add_view(prefix + "data", weight.format, {weight.rows, weight.columns}, weight.bytes, weight.owner);
    } else {
      const int64_t row_bytes = weight.columns / format.block_weights * format.block_bytes;
      add_view(prefix + "data", "U8", {weight.rows, row_bytes}, weight.bytes, weight.owner);
    }
    return {{"kind", "block"}, {"rows", weight.rows}, {"columns", weight.columns}, {"format", weight.format}};
  }

  // Everything but the codes, which a sparse weight stores in its own way.
  Json describe_groups(const std::shared_ptr<const GroupedWeight>& weight, const std::string& prefix) {
    const std::vector<int64_t> shape = {weight->rows, weight->groups()};
    const auto floats = [&](const char* part, const std::vector<float> GroupedWeight::*values) {
      add(prefix + part, weight->scale_format, shape, [weight, values](std::span<std::byte> target) {
        const std::vector<float>& source = (*weight).*values;
        formats::format_at(weight->scale_format).encode(source.data(), nullptr, target.data(), static_cast<int64_t>(source.size()));
      });
    };
    floats("scales", &GroupedWeight::scales);
    if (weight->float_zeros) {
      floats("zeros", &GroupedWeight::zeros);
    } else if (!weight->symmetric) {
      add(prefix + "zeros", "I32", {packed_words(weight->rows, weight->bits), weight->groups()}, [weight](std::span<std::byte> target) {
        const std::vector<uint32_t> words = formats::pack_zeros(*weight);
        std::memcpy(target.data(), words.data(), target.size());
      });
    }
    if (!weight->group_index.empty()) {
      add_view(prefix + "group_index", "I32", {weight->columns}, std::as_bytes(std::span(weight->group_index)), weight);
    }
    return {{"kind", "grouped"},
            {"rows", weight->rows},
            {"columns", weight->columns},
            {"bits", weight->bits},
            {"group_size", weight->group_size},
            {"symmetric", weight->symmetric},
            {"float_zeros", weight->float_zeros},
            {"ordered", weight->group_index.empty()},
            {"scale_format", weight->scale_format}};
  }
  Json describe(const std::shared_ptr<const GroupedWeight>& weight, const std::string& prefix) {
    add_view(prefix + "codes", "I32", {weight->rows, weight->words_per_row()}, std::as_bytes(std::span(weight->codes)), weight);
    return describe_groups(weight, prefix);
  }

  Json describe(const std::shared_ptr<const SparseWeight>& weight, const std::string& prefix) {
    const bool bitmap = weight->pattern == formats::SparsePattern::bitmap;
    Json json = {{"kind", "sparse"}, {"rows", weight->rows}, {"columns", weight->columns}, {"pattern", bitmap ? "bitmap" : "n_of_m"}};
    if (!bitmap) {
      json["n"] = weight->n;
      json["m"] = weight->m;
    }
    // Each part is made again when it is written: one pass over the weight, instead of all parts held at once.
    const auto part = [&](const char* name, const char* format, std::vector<int64_t> shape, auto member) {
      add(prefix + name, format, std::move(shape), [weight, member](std::span<std::byte> target) {
        const formats::SparseParts parts = formats::to_parts(*weight);
        const auto bytes = std::as_bytes(std::span(parts.*member));
        std::copy(bytes.begin(), bytes.end(), target.begin());
      });
    };
    part("positions", "U8", {weight->rows, weight->mask_stride()}, &formats::SparseParts::positions);
    if (bitmap) part("row_offsets", "I64", {weight->rows}, &formats::SparseParts::row_offsets);
    if (weight->grouped.rows == 0) {
      json["value_format"] = weight->value_format;
      part("values", weight->value_format.c_str(), {static_cast<int64_t>(weight->values.size())}, &formats::SparseParts::values);
      return json;
    }
    int64_t words = 0;
    for (int64_t r = 0; r < weight->rows; ++r) {
      int64_t kept = 0;
      for (int64_t i = 0; i < weight->mask_stride(); ++i) kept += std::popcount(weight->mask[static_cast<size_t>(r * weight->mask_stride() + i)]);
      words += packed_words(kept, weight->grouped.bits);
    }
    part("codes", "I32", {words}, &formats::SparseParts::codes);
    json["values"] = describe_groups(std::shared_ptr<const GroupedWeight>(weight, &weight->grouped), prefix);
    return json;
  }

  Json describe(const std::shared_ptr<const Fp8Weight>& weight, const std::string& prefix) {
    add_view(prefix + "codes", "F8_E4M3", {weight->rows, weight->columns}, weight->codes, weight);
    add(prefix + "scales", weight->scale_format, {static_cast<int64_t>(weight->scales.size()) / weight->scale_columns(), weight->scale_columns()},
        [weight](std::span<std::byte> target) {
          formats::format_at(weight->scale_format).encode(weight->scales.data(), nullptr, target.data(), static_cast<int64_t>(weight->scales.size()));
        });
    return {{"kind", "fp8"},
            {"rows", weight->rows},
            {"columns", weight->columns},
            {"block_rows", weight->block_rows},
            {"block_columns", weight->block_columns},
            {"scale_format", weight->scale_format}};
  }

  Json describe(const std::shared_ptr<const CodebookWeight>& weight, const std::string& prefix) {
    add_view(prefix + "codes", "U8", {static_cast<int64_t>(weight->codes.size())}, std::as_bytes(std::span(weight->codes)), weight);
    add_view(prefix + "table", "F32", {16}, std::as_bytes(std::span(weight->table)), weight);
    add(prefix + "scales", weight->scale_format, {static_cast<int64_t>(weight->scales.size())}, [weight](std::span<std::byte> target) {
      formats::format_at(weight->scale_format).encode(weight->scales.data(), nullptr, target.data(), static_cast<int64_t>(weight->scales.size()));
    });
    return {{"kind", "codebook"}, {"rows", weight->rows}, {"columns", weight->columns}, {"block", weight->block}, {"scale_format", weight->scale_format}};
  }

  Json describe(const LowRankWeight& weight, const std::string& prefix) {
    Json json = {{"kind", "low_rank"}};
    json["first"] = term(*weight.first, prefix + "first.");
    json["second"] = term(*weight.second, prefix + "second.");
    return json;
  }

  std::vector<TensorToWrite>& tensors_;
};

// ---- reading --------------------------------------------------------------------------------------------------------

struct Shape {
  int64_t rows, columns;
};

Shape shape_of(const JsonObject& json) { return {json.integer("rows", 1, kMaxFeatures), json.integer("columns", 1, kMaxFeatures)}; }

std::string scale_format_of(const JsonObject& json, std::string_view key) {
  const std::string format = json.text(key);
  if (format != "F32" && format != "F16" && format != "BF16") json.fail_at(key, "must be F32, F16 or BF16");
  return format;
}

class Reader {
 public:
  explicit Reader(const ModuleTensors& tensors) : tensors_(tensors) {}

  StoredTerm term(const JsonObject& json, const std::string& prefix, int depth = 0) const {
    const std::string kind = json.text("kind");
    if (kind == "block") return {block(json, prefix)};
    if (kind == "grouped") return {grouped(json, prefix)};
    if (kind == "sparse") return {sparse(json, prefix)};
    if (kind == "fp8") return {fp8(json, prefix)};
    if (kind == "codebook") return {codebook(json, prefix)};
    if (kind == "low_rank" && depth < kMaxFactorDepth) {
      LowRankWeight weight{std::make_shared<StoredTerm>(term(json.object("first"), prefix + "first.", depth + 1)),
                           std::make_shared<StoredTerm>(term(json.object("second"), prefix + "second.", depth + 1))};
      if (rows_of(*weight.first) != columns_of(*weight.second)) {
        tensors_.refuse("factors of [{}, {}] and [{}, {}] have no product", rows_of(*weight.second), columns_of(*weight.second), rows_of(*weight.first),
                        columns_of(*weight.first));
      }
      return {std::move(weight)};
    }
    fail(ErrorKind::unsupported, "{}.kind: \"{}\" is unknown, perhaps this frugal is older than the file", json.path(), printable(kind));
  }

 private:
  BlockWeight block(const JsonObject& json, const std::string& prefix) const {
    const auto [rows, columns] = shape_of(json);
    const formats::Format* format = formats::find_format(json.text("format"));
    if (!format || !format->decode) fail(ErrorKind::unsupported, "{}.format: \"{}\" is unknown", json.path(), printable(json.text("format")));
    if (columns % format->block_weights != 0) json.fail_at("columns", fmt::format("must be a multiple of {}", format->block_weights));
    const bool plain = !format->safetensors.empty();
    const TensorView& view = plain ? tensors_.matrix(prefix + "data", format->id, rows, columns)
                                   : tensors_.matrix(prefix + "data", "U8", rows, columns / format->block_weights * format->block_bytes);
    return {std::string(format->id), rows, columns, view.bytes, nullptr};
  }

  void read_groups(const JsonObject& json, const std::string& prefix, GroupedWeight& weight) const {
    weight.rows = shape_of(json).rows;
    weight.columns = shape_of(json).columns;
    weight.bits = static_cast<int>(json.integer("bits", 1, 8));
    weight.group_size = json.integer("group_size", 1, weight.columns);
    weight.symmetric = json.boolean_or("symmetric", false);
    weight.float_zeros = json.boolean_or("float_zeros", false);
    weight.scale_format = scale_format_of(json, "scale_format");
    const auto floats = [&](const std::string& part) {
      ScaleTable table = tensors_.scales(part, weight.rows, weight.groups());
      if (table.format != weight.scale_format) tensors_.refuse("{} is {}, frugal.json says {}", part, table.format, weight.scale_format);
      return std::move(table.values);
    };
    weight.scales = floats(prefix + "scales");
    if (weight.float_zeros) {
      weight.zeros = floats(prefix + "zeros");
    } else if (!weight.symmetric) {
      const auto words = values_of<uint32_t>(tensors_.matrix(prefix + "zeros", "I32", packed_words(weight.rows, weight.bits), weight.groups()));
      formats::unpack_zeros({words.begin(), words.end()}, weight, tensors_.module());
    }
    if (!json.boolean_or("ordered", true)) weight.group_index = tensors_.group_index(prefix + "group_index", weight.columns, weight.groups());
  }

  std::shared_ptr<const GroupedWeight> grouped(const JsonObject& json, const std::string& prefix) const {
    const auto weight = std::make_shared<GroupedWeight>();
    read_groups(json, prefix, *weight);
    const auto codes = values_of<uint32_t>(tensors_.matrix(prefix + "codes", "I32", weight->rows, weight->words_per_row()));
    weight->codes.assign(codes.begin(), codes.end());
    return weight;
  }

  std::shared_ptr<const SparseWeight> sparse(const JsonObject& json, const std::string& prefix) const {
    const auto weight = std::make_shared<SparseWeight>();
    weight->rows = shape_of(json).rows;
    weight->columns = shape_of(json).columns;
    const std::string pattern = json.text("pattern");
    if (pattern != "bitmap" && pattern != "n_of_m") json.fail_at("pattern", "must be bitmap or n_of_m");
    const bool bitmap = pattern == "bitmap";
    weight->pattern = bitmap ? formats::SparsePattern::bitmap : formats::SparsePattern::n_of_m;
    if (!bitmap) {
      weight->n = static_cast<int>(json.integer("n", 1, 8));
      weight->m = static_cast<int>(json.integer("m", 1, 8));
    }
    formats::SparseParts parts;
    const auto positions = values_of<uint8_t>(tensors_.matrix(prefix + "positions", "U8", weight->rows, weight->mask_stride()));
    parts.positions.assign(positions.begin(), positions.end());
    if (bitmap) {
      const TensorView& offsets = vector(prefix + "row_offsets", "I64", weight->rows);
      parts.row_offsets.assign(values_of<int64_t>(offsets).begin(), values_of<int64_t>(offsets).end());
    }
    if (json.has("values")) {
      const JsonObject values = json.object("values");
      read_groups(values, prefix, weight->grouped);
      const TensorView& codes = vector(prefix + "codes", "I32", -1);
      parts.codes.assign(values_of<uint32_t>(codes).begin(), values_of<uint32_t>(codes).end());
    } else {
      weight->value_format = scale_format_of(json, "value_format");
      const TensorView& values = vector(prefix + "values", weight->value_format, -1);
      parts.values.assign(values.bytes.begin(), values.bytes.end());
    }
    formats::from_parts(parts, *weight, tensors_.module());
    return weight;
  }

  std::shared_ptr<const Fp8Weight> fp8(const JsonObject& json, const std::string& prefix) const {
    const auto weight = std::make_shared<Fp8Weight>();
    weight->rows = shape_of(json).rows;
    weight->columns = shape_of(json).columns;
    weight->block_rows = json.integer("block_rows", 1, weight->rows);
    weight->block_columns = json.integer("block_columns", 1, weight->columns);
    weight->scale_format = scale_format_of(json, "scale_format");
    weight->codes = tensors_.matrix(prefix + "codes", "F8_E4M3", weight->rows, weight->columns).bytes;
    weight->scales = tensors_.scales(prefix + "scales", (weight->rows + weight->block_rows - 1) / weight->block_rows, weight->scale_columns()).values;
    return weight;
  }

  std::shared_ptr<const CodebookWeight> codebook(const JsonObject& json, const std::string& prefix) const {
    const auto weight = std::make_shared<CodebookWeight>();
    weight->rows = shape_of(json).rows;
    weight->columns = shape_of(json).columns;
    weight->block = json.integer("block", 1, kMaxFeatures);
    weight->scale_format = scale_format_of(json, "scale_format");
    const int64_t count = weight->rows * weight->columns;  // both at most 2^30
    const auto codes = values_of<uint8_t>(vector(prefix + "codes", "U8", (count + 1) / 2));
    weight->codes.assign(codes.begin(), codes.end());
    const auto table = values_of<float>(vector(prefix + "table", "F32", 16));
    std::copy(table.begin(), table.end(), weight->table.begin());
    weight->scales = tensors_.scales(prefix + "scales", (count + weight->block - 1) / weight->block, 1).values;
    return weight;
  }

  // count -1: any
  const TensorView& vector(const std::string& part, const std::string& format, int64_t count) const {
    const TensorView& view = tensors_.at(part);
    if (view.format != format || view.shape.size() != 1 || (count >= 0 && view.shape[0] != count)) {
      tensors_.fail_shape(view, fmt::format("{} [{}]", format, count >= 0 ? fmt::format("{}", count) : "any"));
    }
    return view;
  }

  const ModuleTensors& tensors_;
};

std::string prefix_of(size_t index) { return index == 0 ? "frugal." : fmt::format("frugal.{}.", index); }

constexpr std::string_view kActivationNames[] = {"none", "per_token", "per_tensor"};

ActivationQuant read_activation(const JsonObject& json) {
  ActivationQuant activation;
  const std::string kind = json.text("kind");
  const auto at = std::find(std::begin(kActivationNames), std::end(kActivationNames), kind);
  if (at == std::end(kActivationNames)) json.fail_at("kind", "must be none, per_token or per_tensor");
  activation.kind = static_cast<ActivationQuant::Kind>(at - std::begin(kActivationNames));
  activation.bits = static_cast<int>(json.integer("bits", 2, 8));
  activation.scale = static_cast<float>(json.number_or("scale", 0, 0, 1e30));
  if (activation.kind == ActivationQuant::Kind::per_tensor && !(activation.scale > 0)) json.fail_at("scale", "must be above 0");
  return activation;
}

}  // namespace

Json describe_own_layout(const StoredWeight& weight, const std::string& module, std::vector<TensorToWrite>& tensors) {
  Json json = Json::object();
  json["terms"] = Json::array();
  for (size_t i = 0; i < weight.terms.size(); ++i) {
    json["terms"].push_back(Describer(tensors).term(weight.terms[i], module + "." + prefix_of(i)));
  }
  if (weight.activation.kind != ActivationQuant::Kind::none) {
    json["activation"] = {{"kind", kActivationNames[static_cast<size_t>(weight.activation.kind)]}, {"bits", weight.activation.bits}};
    if (weight.activation.kind == ActivationQuant::Kind::per_tensor) json["activation"]["scale"] = weight.activation.scale;
  }
  return json;
}

StoredWeight read_own_layout(const ModuleTensors& tensors, const JsonObject& description) {
  const Json* terms = description.find("terms");
  if (!terms || !terms->is_array() || terms->empty() || terms->size() > 64) description.fail_at("terms", "must be an array of 1..64 terms");
  StoredWeight weight;
  for (size_t i = 0; i < terms->size(); ++i) {
    weight.terms.push_back(Reader(tensors).term(JsonObject((*terms)[i], fmt::format("{}.terms[{}]", description.path(), i)), prefix_of(i)));
    if (rows_of(weight.terms[i]) != rows_of(weight.terms[0]) || columns_of(weight.terms[i]) != columns_of(weight.terms[0])) {
      tensors.refuse("term {} is [{}, {}], the first is [{}, {}]", i, rows_of(weight.terms[i]), columns_of(weight.terms[i]), rows_of(weight.terms[0]),
                     columns_of(weight.terms[0]));
    }
  }
  if (description.has("activation")) weight.activation = read_activation(description.object("activation"));
  return weight;
}

}  // namespace frugal::io
