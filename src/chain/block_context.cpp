#include <ATen/ATen.h>

#include "base/error.h"
#include "chain/step.h"
#include "chain/weights.h"

namespace frugal::chain {

using nn::InputPoint;

const InputStatistics& Matrix::statistics() const { return find_statistics(); }

namespace {

std::shared_ptr<nn::LinearKind> grouped_kind(const Matrix& matrix, formats::GroupedWeight codes, formats::ActivationQuant activation) {
  FRUGAL_ASSERT(codes.rows == matrix.out_features() && codes.columns == matrix.in_features());
  if (!matrix.mask.defined()) {
    formats::validate(codes, matrix.name);
    return std::make_shared<nn::GroupedKind>(std::make_shared<formats::GroupedWeight>(std::move(codes)), activation);
  }
  formats::SparseWeight sparse = sparse_pattern(matrix.mask, matrix.n, matrix.m);
  sparse.grouped = std::move(codes);
  formats::validate(sparse, matrix.name);
  return std::make_shared<nn::SparseKind>(std::make_shared<formats::SparseWeight>(std::move(sparse)), activation);
}

std::shared_ptr<nn::LinearKind> sparse_kind(const Matrix& matrix, formats::SparseWeight pattern, const Tensor& values, const Tensor& kept) {
  const Tensor selected = values.to(at::kHalf).to(at::kFloat).contiguous().masked_select(kept);
  pattern.values.assign(selected.const_data_ptr<float>(), selected.const_data_ptr<float>() + selected.numel());
  formats::index_rows(pattern);
  formats::validate(pattern, matrix.name);
  return std::make_shared<nn::SparseKind>(std::make_shared<formats::SparseWeight>(std::move(pattern)));
}

}  // namespace

void Matrix::store_grouped(formats::GroupedWeight codes, formats::ActivationQuant activation) { replace(grouped_kind(*this, std::move(codes), activation)); }

void Matrix::store_grouped_and_sparse(formats::GroupedWeight codes, const Tensor& values, const Tensor& chosen) {
  FRUGAL_ASSERT(holds_sum() && values.sizes() == weight.sizes() && chosen.sizes() == weight.sizes());
  replace_by_sum({grouped_kind(*this, std::move(codes), {}), sparse_kind(*this, sparse_pattern(chosen, 0, 0), values, chosen)});
}

void Matrix::store_masked(const Tensor& values, const Tensor& kept, int pattern_n, int pattern_m) {
  const bool masked_before = mask.defined();
  const Tensor both = masked_before ? mask.logical_and(kept) : kept;
  // A second mask leaves fewer than n of m: the pattern is then stored as a bitmap.
  replace(sparse_kind(*this, sparse_pattern(both, masked_before ? 0 : pattern_n, pattern_m), values, both));
}

void Matrix::store_dense(const Tensor& values) {
  FRUGAL_ASSERT(values.sizes() == weight.sizes());
  if (!mask.defined()) {
    replace(std::make_shared<nn::DenseKind>(values.to(at::kFloat).contiguous()));
    return;
  }
  const Tensor kept = mask;
  mask = Tensor();
  store_masked(values, kept, n, m);
}

void Matrix::store_low_rank(const Tensor& first, const Tensor& second) {
  FRUGAL_ASSERT(first.size(1) == in_features() && second.size(0) == out_features() && first.size(0) == second.size(1));
  if (mask.defined()) fail(ErrorKind::invalid_input, "{}: factors of a masked matrix would lose the mask", name);
  replace(std::make_shared<nn::LowRankKind>(std::make_shared<nn::DenseKind>(first.to(at::kHalf).contiguous()),
                                            std::make_shared<nn::DenseKind>(second.to(at::kHalf).contiguous())));
}

namespace {

Matrix matrix_of(const std::string& name, InputPoint point, const nn::LinearKind& kind) {
  Matrix matrix;
  matrix.name = name;
  matrix.point = point;
  matrix.weight = kind.dense().clone();
  if (!matrix.weight.isfinite().all().item<bool>()) fail(ErrorKind::corrupt_file, "{}: a weight is not finite (NaN or infinity)", name);
  if (const auto* sparse = dynamic_cast<const nn::SparseKind*>(&kind)) {
    matrix.mask = sparse->mask();
    if (sparse->weight()->pattern == formats::SparsePattern::n_of_m) {
      matrix.n = sparse->weight()->n;
      matrix.m = sparse->weight()->m;
    }
  }
  return matrix;
}

// Statistics of first(x) from those of x; abs_mean and abs_max from the sample, since they do not carry over exactly.
InputStatistics carry_through(const InputStatistics& in, const Tensor& first) {
  InputStatistics out;
  out.tokens = in.tokens;
  if (in.hessian.defined()) {
    out.hessian = at::matmul(at::matmul(first, in.hessian), first.t());
    out.norm = (out.hessian.diagonal().clamp_min(0) * static_cast<double>(in.tokens)).sqrt();
  }
  if (in.sample.defined()) {
    out.sample = at::matmul(in.sample, first.t());
    const Tensor magnitude = out.sample.abs();
    out.abs_mean = magnitude.mean(0);
    out.abs_max = magnitude.amax(0);
  }
  return out;
}

}  // namespace

std::vector<Matrix> BlockContext::matrices() {
  std::vector<Matrix> all;
  for (const InputPoint point : nn::kInputPoints) {
    for (Matrix& matrix : matrices_at(point)) all.push_back(std::move(matrix));
  }
  return all;
}

std::vector<Matrix> BlockContext::matrices_at(InputPoint point) {
  std::vector<Matrix> result;
  for (nn::Linear* linear : block.linears_at(point)) {
    const auto direct = [this, point]() -> const InputStatistics& { return statistics(point); };
    const auto* product = linear->kinds().size() == 1 ? dynamic_cast<nn::LowRankKind*>(linear->kinds().front().get()) : nullptr;
    if (!product) {
      Matrix matrix = linear->kinds().size() == 1 ? matrix_of(linear->name(), point, *linear->kinds().front())
                                                  : matrix_of(linear->name(), point, nn::DenseKind(linear->dense()));
      matrix.find_statistics = direct;
      matrix.replace = [linear](std::shared_ptr<nn::LinearKind> kind) { linear->replace(std::move(kind)); };
      matrix.replace_by_sum = [linear](std::vector<std::shared_ptr<nn::LinearKind>> kinds) { linear->replace(std::move(kinds)); };
      result.push_back(std::move(matrix));
      continue;
    }
    // The factors are looked up anew in `replace`: the other one may have been replaced meanwhile.
    const auto current = [linear] { return dynamic_cast<nn::LowRankKind*>(linear->kinds().front().get()); };
    Matrix first = matrix_of(linear->name() + ".first", point, *product->first());
    first.find_statistics = direct;
    first.replace = [linear, current](std::shared_ptr<nn::LinearKind> kind) {
      linear->replace(std::make_shared<nn::LowRankKind>(std::move(kind), current()->second()));
    };
    Matrix second = matrix_of(linear->name() + ".second", point, *product->second());
    const auto carried = std::make_shared<std::optional<InputStatistics>>();
    second.find_statistics = [this, point, carried, current]() -> const InputStatistics& {
      if (!*carried) *carried = carry_through(statistics(point), current()->first()->dense());
      return **carried;
    };
    second.replace = [linear, current](std::shared_ptr<nn::LinearKind> kind) {
      linear->replace(std::make_shared<nn::LowRankKind>(current()->first(), std::move(kind)));
    };
    result.push_back(std::move(first));
    result.push_back(std::move(second));
  }
  return result;
}

const InputStatistics& BlockContext::statistics(InputPoint point) const {
  const auto it = inputs.find(point);
  if (it == inputs.end()) {
    fail(ErrorKind::internal, "block {} has no statistics of its {}: the step's row does not ask for any", index, nn::to_string(point));
  }
  return it->second;
}

Tensor BlockContext::run_from(InputPoint point, const Tensor& input) {
  const Tensor x = input.defined() ? input : statistics(point).sample;
  FRUGAL_ASSERT(x.defined());
  switch (point) {
    case InputPoint::attention_input: {
      std::vector<nn::SequenceSlice> slices;
      for (int64_t begin = 0; begin < x.size(0); begin += sequence_length) {
        slices.push_back({begin, std::min(sequence_length, x.size(0) - begin), nullptr});
      }
      return block.attend(x, slices, nn::Model::positions(slices));
    }
    case InputPoint::attention_output: return block.output.forward(nn::Activation(x));
    case InputPoint::mlp_input: return block.mlp(x);
    case InputPoint::mlp_output: return block.down.forward(nn::Activation(x));
  }
  return {};
}

Tensor BlockContext::shared_over_heads(const Tensor& per_input_channel) const {
  const nn::BlockSpec& spec = block.spec;
  const int64_t share = spec.heads / spec.kv_heads;
  return per_input_channel.view({spec.kv_heads, share, spec.head_dim}).mean(1, /*keepdim=*/true).expand({spec.kv_heads, share, spec.head_dim}).reshape({-1});
}

namespace {

void divide_norm(nn::Norm& norm, const Tensor& scale) {
  norm.weight = norm.kind == nn::NormKind::rms_plus_one ? (norm.weight + 1) / scale - 1 : norm.weight / scale;
}

// rows of `linear` divided by divisor [out_features].
void divide_rows(std::vector<Matrix> matrices, const std::string& name, nn::Linear& linear, const Tensor& divisor) {
  for (Matrix& matrix : matrices) {
    if (matrix.name == name || matrix.name == name + ".second") matrix.store_dense(matrix.weight / divisor.unsqueeze(1));
  }
  if (linear.bias().defined()) linear.mutable_bias() = linear.bias() / divisor;
}

}  // namespace

void BlockContext::scale_input(InputPoint point, const Tensor& scale) {
  const bool after_norm = point == InputPoint::attention_input || point == InputPoint::mlp_input;
  if (after_norm && (block.spec.norm == nn::NormKind::none || block.spec.norm_after_add)) {
    fail(ErrorKind::unsupported, "the {} cannot be scaled: no norm just before it could take the inverse, it is the residual stream itself",
         nn::to_string(point));
  }
  for (Matrix& matrix : matrices_at(point)) {
    if (!matrix.name.ends_with(".second")) matrix.store_dense(matrix.weight * scale.unsqueeze(0));
  }
  switch (point) {
    case InputPoint::attention_input: divide_norm(block.input_norm, scale); break;
    case InputPoint::mlp_input: divide_norm(block.post_attention_norm, scale); break;
    case InputPoint::attention_output: {
      if (block.spec.sub_norms) {
        divide_norm(block.attention_sub_norm, scale);
        break;
      }
      const nn::BlockSpec& spec = block.spec;
      const Tensor per_head = scale.view({spec.kv_heads, spec.heads / spec.kv_heads, spec.head_dim});
      if (!at::allclose(per_head, per_head.narrow(1, 0, 1).expand_as(per_head))) {
        fail(ErrorKind::internal, "block {}: the scale of attention_output differs between heads that share a value channel", index);
      }
      divide_rows(matrices_at(InputPoint::attention_input), block.value.name(), block.value, per_head.select(1, 0).reshape({-1}));
      break;
    }
    case InputPoint::mlp_output:
      if (block.spec.sub_norms)
        divide_norm(block.mlp_sub_norm, scale);
      else
        divide_rows(matrices_at(InputPoint::mlp_input), block.up.name(), block.up, scale);
      break;
  }
  const auto it = inputs.find(point);
  if (it == inputs.end()) return;
  InputStatistics& s = it->second;
  if (s.hessian.defined()) s.hessian = s.hessian / at::outer(scale, scale);
  for (Tensor* vector : {&s.norm, &s.abs_mean, &s.abs_max, &s.sample}) {
    if (vector->defined()) *vector = *vector / scale;
  }
}

}  // namespace frugal::chain
