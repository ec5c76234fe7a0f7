#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "base/error.h"
#include "base/file.h"
#include "base/team.h"
#include "nn/linear.h"
#include "nn/round_activation.h"
#include "ops/ops.h"
#include "ops/packed_linear.h"

namespace frugal::nn {

using formats::ActivationQuant;

EncodedKind::~EncodedKind() = default;

Tensor EncodedKind::dense() const {
  if (expanded_.defined()) return expanded_;
  const at::NoGradGuard no_grad;
  hold_source();
  Tensor out = at::empty({out_features(), in_features()}, at::kFloat);
  float* values = out.mutable_data_ptr<float>();
  const int64_t columns = in_features();
  parallel_for(out_features(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) decode_row_into(row, values + row * columns);
  });
  return out;
}

Tensor EncodedKind::rows(const Tensor& ids) const {
  hold_source();
  const Tensor index = ids.contiguous();
  Tensor out = at::empty({index.numel(), in_features()}, at::kFloat);
  float* values = out.mutable_data_ptr<float>();
  for (int64_t i = 0; i < index.numel(); ++i) decode_row_into(index.const_data_ptr<int64_t>()[i], values + i * in_features());
  return out;
}

uint64_t EncodedKind::resident_bytes() const {
  if (packed_) return packed_->bytes();
  return expanded_.defined() ? static_cast<uint64_t>(expanded_.nbytes()) : storage_bytes();
}

void EncodedKind::set_execution(Execution execution) {
  invariant_ = execution == Execution::packed;
  if (execution == Execution::packed) {
    if (!packed_) {
      packed_ = make_packed();
      if (packed_) drop_source();
    }
  } else {
    packed_ = nullptr;
  }
  const bool expand = execution == Execution::expanded || (execution == Execution::packed && !packed_);
  expanded_ = expand ? dense() : Tensor();
}

// In float the rounding of the activation is part of the layer.
Tensor EncodedKind::round_activation(const Tensor& x) const { return nn::round_activation(x, activation_); }

Tensor EncodedKind::forward(const Activation& input) const {
  const Tensor& x = input.values();
  if (ops::wants_gradient({x})) return ops::frozen_linear(round_activation(x), [this] { return dense(); });
  if (!packed_) return ops::float_linear(round_activation(x), dense(), invariant_);
  return ops::packed_linear(*packed_, input.quantized(activation_));
}

BlockKind::BlockKind(const formats::Format& format, Source source, int64_t out_features, int64_t in_features, std::function<Source()> reread)
    : format_(&format),
      source_(std::move(source)),
      out_features_(out_features),
      in_features_(in_features),
      storage_bytes_(source_.bytes.size()),
      reread_(std::move(reread)) {
  FRUGAL_ASSERT(storage_bytes_ == formats::bytes_of(format, static_cast<uint64_t>(out_features * in_features)));
  FRUGAL_ASSERT(format.decode && in_features % format.block_weights == 0);
}

std::span<const std::byte> BlockKind::bytes() const {
  if (source_.bytes.empty() && reread_) source_ = reread_();
  return source_.bytes;
}

const std::byte* BlockKind::row_bytes(int64_t row) const {
  return source_.bytes.data() + row * (in_features_ / format_->block_weights * static_cast<int64_t>(format_->block_bytes));
}

void BlockKind::decode_row_into(int64_t row, float* values) const { format_->decode(row_bytes(row), values, in_features_); }

std::shared_ptr<const ops::PackedMatrix> BlockKind::make_packed() const {
  const formats::IntegerForm form = format_->integer;
  if (form.bits == 0 || !ops::supports_packing(form.bits, form.group, in_features_)) return nullptr;
  hold_source();
  return std::make_shared<ops::PackedMatrix>(ops::IntegerRows{
      out_features_, in_features_, form.bits, form.group,
      [this](int64_t row, uint8_t* codes, float* scales, float* minimums) { format_->split(row_bytes(row), codes, scales, minimums, in_features_); }});
}

// Of a tied embedding, rows are read now and then: their pages come back.
void BlockKind::drop_source() const {
  if (reread_) {
    source_ = {};
  } else {
    release_mapped(source_.bytes);
  }
}

namespace {

// Widths that the kernels have; 1 and 7 bits are packed a bit wider.
int packed_bits(int bits) { return bits == 1 ? 2 : bits == 7 ? 8 : bits; }

// scale * (code - zero) as scale * code + minimum.
ops::IntegerRows integer_rows(const formats::GroupedWeight& weight) {
  return {weight.rows, weight.columns, packed_bits(weight.bits), std::min(weight.group_size, weight.columns),
          [&weight](int64_t row, uint8_t* codes, float* scales, float* minimums) {
            formats::unpack_row(weight, row, codes);
            const int64_t groups = weight.groups();
            for (int64_t g = 0; g < groups; ++g) {
              const size_t index = static_cast<size_t>(row * groups + g);
              const float zero = weight.symmetric ? static_cast<float>(1 << (weight.bits - 1)) : weight.zeros[index];
              scales[g] = weight.scales[index];
              minimums[g] = -zero * weight.scales[index];
            }
          }};
}

bool can_pack(const formats::GroupedWeight& weight) {
  return weight.group_index.empty() && ops::supports_packing(packed_bits(weight.bits), std::min(weight.group_size, weight.columns), weight.columns);
}

}  // namespace

GroupedKind::GroupedKind(Weight weight, ActivationQuant activation, std::function<Weight()> reread)
    : EncodedKind(activation), storage_bytes_(weight->storage_bytes()), weight_(std::move(weight)), reread_(std::move(reread)) {
  header_.rows = weight_->rows;
  header_.columns = weight_->columns;
  header_.bits = weight_->bits;
  header_.group_size = weight_->group_size;
  header_.symmetric = weight_->symmetric;
  header_.float_zeros = weight_->float_zeros;
  header_.scale_format = weight_->scale_format;
}

const GroupedKind::Weight& GroupedKind::weight() const {
  if (!weight_) weight_ = reread_();
  return weight_;
}

void GroupedKind::drop_source() const {
  if (reread_) weight_ = nullptr;
}

void GroupedKind::decode_row_into(int64_t row, float* values) const { formats::decode_row(*weight_, row, values); }

std::shared_ptr<const ops::PackedMatrix> GroupedKind::make_packed() const {
  if (!integer_activation() || !can_pack(*weight())) return nullptr;
  return std::make_shared<ops::PackedMatrix>(integer_rows(*weight()));
}

namespace {

std::string describe_activation(const ActivationQuant& quant) {
  if (quant.kind == ActivationQuant::Kind::none) return "";
  return fmt::format(" A{}{}", quant.bits, quant.kind == ActivationQuant::Kind::per_token ? "" : " static");
}

}  // namespace

std::string GroupedKind::describe() const {
  std::string text =
      fmt::format("int{} {}", header_.bits, header_.group_size >= header_.columns ? std::string("per row") : fmt::format("g{}", header_.group_size));
  if (!header_.symmetric) text += header_.float_zeros ? " float zeros" : " asym";
  return text + describe_activation(activation());
}

SparseKind::SparseKind(std::shared_ptr<const formats::SparseWeight> weight, ActivationQuant activation) : EncodedKind(activation), weight_(std::move(weight)) {}

void SparseKind::decode_row_into(int64_t row, float* values) const { formats::decode_row(*weight_, row, values); }

// Dropped entries take the code of zero, where one exists: the product then costs what the dense integer product costs.
std::shared_ptr<const ops::PackedMatrix> SparseKind::make_packed() const {
  const formats::GroupedWeight& grouped = weight_->grouped;
  if (!integer_activation() || grouped.rows == 0 || grouped.float_zeros || !can_pack(grouped)) return nullptr;
  const auto source = std::make_shared<ops::IntegerRows>(integer_rows(grouped));
  const int64_t mask_bytes = (weight_->columns + 7) / 8;
  ops::IntegerRows rows = *source;
  rows.read_row = [this, source, &grouped, mask_bytes](int64_t row, uint8_t* codes, float* scales, float* minimums) {
    source->read_row(row, codes, scales, minimums);
    const uint8_t* mask = weight_->mask.data() + row * mask_bytes;
    for (int64_t c = 0; c < grouped.columns; ++c) {
      if (mask[c / 8] >> (c % 8) & 1) continue;
      const int64_t g = c / grouped.group_size;
      codes[c] = grouped.symmetric ? static_cast<uint8_t>(1 << (grouped.bits - 1))
                                   : static_cast<uint8_t>(grouped.zeros[static_cast<size_t>(row * grouped.groups() + g)]);
    }
  };
  return std::make_shared<ops::PackedMatrix>(rows);
}

Tensor SparseKind::mask() const {
  Tensor out = at::empty({weight_->rows, weight_->columns}, at::kBool);
  bool* kept = out.mutable_data_ptr<bool>();
  const int64_t mask_bytes = (weight_->columns + 7) / 8;
  for (int64_t r = 0; r < weight_->rows; ++r) {
    for (int64_t c = 0; c < weight_->columns; ++c) {
      kept[r * weight_->columns + c] = weight_->mask[static_cast<size_t>(r * mask_bytes + c / 8)] >> (c % 8) & 1;
    }
  }
  return out;
}

std::string SparseKind::describe() const {
  uint64_t kept = 0;
  for (const uint8_t byte : weight_->mask) kept += static_cast<uint64_t>(__builtin_popcount(byte));
  const double share = 1.0 - static_cast<double>(kept) / static_cast<double>(weight_->rows * weight_->columns);
  const std::string pattern =
      weight_->pattern == formats::SparsePattern::n_of_m ? fmt::format("{}:{}", weight_->n, weight_->m) : fmt::format("sparse {:.0f}%", 100 * share);
  const std::string values = weight_->grouped.rows == 0 ? weight_->value_format : fmt::format("int{} g{}", weight_->grouped.bits, weight_->grouped.group_size);
  return pattern + " " + values + describe_activation(activation());
}

}  // namespace frugal::nn
