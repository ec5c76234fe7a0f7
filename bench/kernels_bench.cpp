// The ladder of the integer product, from the naive loop to the best instruction set, and a stack of SmolLM2-135M's layers with
// random weights. Every rung is checked against the naive one before it is timed; shares are of the limits that this run
// measured.   kernels_bench [threads] [layers|ladder|attention]
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/rng.h"
#include "base/team.h"
#include "kernels/cpu/activation.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/float_matmul.h"
#include "kernels/cpu/half.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/machine.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/rope.h"

namespace frugal::kernels {
namespace {

// On one thread CPU time, so that other programs do not count.
double now() {
  timespec time{};
  clock_gettime(team_size() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// The fastest quarter of at least 8 calls within about 0.5 s, after one that warms up (as for the limits, see machine.cpp).
template <typename Body>
double good_seconds(const Body& body) {
  body();
  std::vector<double> times;
  const double begin = now();
  while (times.size() < 8 || (now() - begin < 0.5 && times.size() < 100000)) {
    const double start = now();
    body();
    times.push_back(now() - start);
  }
  const auto at = times.begin() + static_cast<int64_t>(times.size() / 4);
  std::nth_element(times.begin(), at, times.end());
  return *at;
}

struct Weight {
  int64_t rows, columns;
  int bits;
  int64_t group;
  bool minimums;
  std::vector<uint8_t> codes;
  std::vector<float> scales, offsets;  // [rows, groups]

  Weight(int64_t r, int64_t c, int b, int64_t g, bool with_minimums, Rng& rng) : rows(r), columns(c), bits(b), group(g), minimums(with_minimums) {
    codes.resize(static_cast<size_t>(rows * columns));
    for (uint8_t& code : codes) code = static_cast<uint8_t>(rng.next() & ((1u << bits) - 1));
    for (int64_t i = 0; i < rows * groups(); ++i) {
      scales.push_back(half_to_float(float_to_half(static_cast<float>(rng.uniform(0.5, 1.5) / (1 << bits) / std::sqrt(columns)))));
      const float middle = -static_cast<float>(1 << (bits - 1)) * scales.back();
      offsets.push_back(minimums ? half_to_float(float_to_half(middle * 1.1f)) : middle);
    }
  }
  int64_t groups() const { return (columns + group - 1) / group; }
  PackedMatrix pack() const {
    IntegerRows source;
    source.rows = rows;
    source.columns = columns;
    source.bits = bits;
    source.group = group;
    source.read_row = [this](int64_t row, uint8_t* c, float* s, float* m) {
      std::copy_n(codes.data() + row * columns, columns, c);
      std::copy_n(scales.data() + row * groups(), groups(), s);
      std::copy_n(offsets.data() + row * groups(), groups(), m);
    };
    return PackedMatrix(source);
  }
};

void naive(const Weight& w, const QuantizedActivations& x, float* out) {
  const ActivationView& v = x.view();
  for (int64_t t = 0; t < v.tokens; ++t) {
    for (int64_t r = 0; r < w.rows; ++r) {
      float sum = 0;
      for (int64_t c = 0; c < w.columns; ++c) {
        const auto g = static_cast<size_t>(r * w.groups() + c / w.group);
        const float weight = w.scales[g] * w.codes[static_cast<size_t>(r * w.columns + c)] + w.offsets[g];
        sum += weight * (v.scales[t * v.padded_columns / 32 + c / 32] * v.codes[t * v.padded_columns + c]);
      }
      out[t * w.rows + r] = sum;
    }
  }
}

void check(const std::vector<float>& expected, const std::vector<float>& out) {
  for (size_t i = 0; i < out.size(); ++i) {
    if (!(std::abs(out[i] - expected[i]) <= 1e-3f * (1 + std::abs(expected[i])))) {
      fail(ErrorKind::internal, "benchmark: entry {} is {}, the naive product gives {}", i, out[i], expected[i]);
    }
  }
}

std::vector<float> random_floats(int64_t count, Rng& rng) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = static_cast<float>(rng.normal());
  return values;
}

void ladder_row(const Weight& weight, const MachineLimits& limits, Rng& rng) {
  const auto x = random_floats(256 * weight.columns, rng);
  QuantizedActivations one, many;
  one.quantize(x.data(), 1, weight.columns, weight.columns);
  many.quantize(x.data(), 256, weight.columns, weight.columns);
  std::vector<float> expected(static_cast<size_t>(weight.rows)), out(static_cast<size_t>(256 * weight.rows));
  naive(weight, one, expected.data());
  const double macs = static_cast<double>(weight.rows) * static_cast<double>(weight.columns);
  if (macs < 2e6) {
    const double naive_seconds = good_seconds([&] { naive(weight, one, out.data()); });
    fmt::print("{:>5} x {:<5} {} bits g{:<4} naive    1 token {:8.2f} GOP/s\n", weight.rows, weight.columns, weight.bits, weight.group,
               2e-9 * macs / naive_seconds);
  }
  for (const Isa isa : available_isas()) {
    set_isa(isa);
    const PackedMatrix packed = weight.pack();
    matmul_packed(packed, one, out.data(), weight.rows);
    check(expected, {out.begin(), out.begin() + weight.rows});
    // Copies beyond the caches, so that one token reads memory, as in a model.
    std::vector<PackedMatrix> copies;
    while (copies.empty() || copies.size() * packed.bytes() < (48u << 20)) copies.push_back(weight.pack());
    size_t next = 0;
    const double decode = good_seconds([&] { matmul_packed(copies[next++ % copies.size()], one, out.data(), weight.rows); });
    const int64_t tokens = isa == Isa::scalar ? 8 : 256;
    QuantizedActivations batch;
    batch.quantize(x.data(), tokens, weight.columns, weight.columns);
    const double prefill = good_seconds([&] { matmul_packed(packed, batch, out.data(), weight.rows); });
    const double gops = 2e-9 * macs * static_cast<double>(tokens) / prefill;
    const double gbs = 1e-9 * static_cast<double>(packed.bytes()) / decode;
    const double peak = 2e-9 * (weight.bits <= 4 ? limits.integer_peak_4bit : limits.integer_peak);
    fmt::print("{:>5} x {:<5} {} bits g{:<4} {:<8} 1 token {:6.2f} GB/s ({:3.0f} % of bandwidth)   {} tokens {:7.1f} GOP/s ({:3.0f} % of the inner loop)\n",
               weight.rows, weight.columns, weight.bits, weight.group, to_string(isa), gbs, 100e9 * gbs / limits.read_bandwidth, tokens, gops,
               100 * gops / peak);
  }
  std::fflush(stdout);
}

// SmolLM2-135M: 30 layers of hidden size 576, 9 heads over 3 kv heads of 64, MLP 1536, head 49152.
struct Layer {
  PackedMatrix q, k, v, o, gate, up, down;
};

class Stack {
 public:
  static constexpr int64_t kHidden = 576, kKv = 192, kMlp = 1536, kVocabulary = 49152, kContext = 512;
  static constexpr CacheLayout kCache = {CacheType::f16, 3, 64, kContext};

  explicit Stack(Rng& rng) {
    const auto make = [&](int64_t rows, int64_t columns) { return Weight(rows, columns, 4, 32, true, rng).pack(); };
    for (int i = 0; i < 30; ++i) {
      layers_.push_back({make(kHidden, kHidden), make(kKv, kHidden), make(kKv, kHidden), make(kHidden, kHidden), make(kMlp, kHidden), make(kMlp, kHidden),
                         make(kHidden, kMlp)});
      key_cache_.emplace_back(static_cast<size_t>(kCache.page_bytes()));
      value_cache_.emplace_back(static_cast<size_t>(kCache.page_bytes()));
    }
    head_ = Weight(kVocabulary, kHidden, 8, 32, false, rng).pack();
    norm_.assign(kHidden, 1.0f);
    cos_ = random_floats(kContext * 32, rng);
    sin_ = random_floats(kContext * 32, rng);
  }
  uint64_t bytes() const {
    uint64_t sum = head_.bytes();
    for (const Layer& l : layers_) {
      for (const PackedMatrix* m : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}) sum += m->bytes();
    }
    return sum;
  }
  double layer_macs() const { return 30.0 * (2.0 * kHidden * kHidden + 2.0 * kKv * kHidden + 3.0 * kHidden * kMlp); }

  // `tokens` tokens from `position` on; logits of the last.
  void step(const std::vector<float>& input, int64_t tokens, int64_t position) {
    std::vector<float> hidden(input.begin(), input.begin() + tokens * kHidden);
    normed_.resize(static_cast<size_t>(tokens * kHidden));
    q_.resize(static_cast<size_t>(tokens * kHidden));
    k_.resize(static_cast<size_t>(tokens * kKv));
    v_.resize(static_cast<size_t>(tokens * kKv));
    gate_.resize(static_cast<size_t>(tokens * kMlp));
    up_.resize(static_cast<size_t>(tokens * kMlp));
    logits_.resize(kVocabulary);
    positions_.clear();
    for (int64_t t = 0; t < tokens; ++t) positions_.push_back(position + t);
    for (size_t i = 0; i < layers_.size(); ++i) {
      const Layer& l = layers_[i];
      rms_norm({hidden.data(), 0, normed_.data(), 0, tokens, kHidden}, norm_.data(), {});
      activations_.quantize(normed_.data(), tokens, kHidden, kHidden);
      const PackedProduct qkv[] = {{&l.q, q_.data(), kHidden}, {&l.k, k_.data(), kKv}, {&l.v, v_.data(), kKv}};
      matmul_packed(qkv, activations_);
      rope(q_.data(), tokens, kHidden, positions_.data(), cos_.data(), sin_.data(), kContext, {9, 64, 64, RopePairs::halves});
      rope(k_.data(), tokens, kKv, positions_.data(), cos_.data(), sin_.data(), kContext, {3, 64, 64, RopePairs::halves});
      write_cache(CachePart::keys, kCache, k_.data(), tokens, key_cache_[i].data(), position);
      write_cache(CachePart::values, kCache, v_.data(), tokens, value_cache_[i].data(), position);
      attend(i, tokens, position);
      project(l.o, normed_.data(), kHidden, tokens, hidden);
      rms_norm({hidden.data(), 0, normed_.data(), 0, tokens, kHidden}, norm_.data(), {});
      activations_.quantize(normed_.data(), tokens, kHidden, kHidden);
      const PackedProduct mlp[] = {{&l.gate, gate_.data(), kMlp}, {&l.up, up_.data(), kMlp}};
      matmul_packed(mlp, activations_);
      gated_activation({gate_.data(), 0, up_.data(), 0, gate_.data(), 0, tokens, kMlp}, GateKind::silu);
      project(l.down, gate_.data(), kMlp, tokens, hidden);
    }
    activations_.quantize(hidden.data() + (tokens - 1) * kHidden, 1, kHidden, kHidden);
    matmul_packed(head_, activations_, logits_.data(), kVocabulary);
  }

 private:
  void attend(size_t layer, int64_t tokens, int64_t position) {
    AttentionShape shape;
    shape.heads = 9;
    shape.kv_heads = 3;
    shape.head_dim = 64;
    shape.scale = 0.125f;
    shape.cache = CacheType::f16;
    shape.page_size = kContext;
    const void* keys = key_cache_[layer].data();
    const void* values = value_cache_[layer].data();
    AttentionSequence s;
    s.q = q_.data();
    s.out = normed_.data();
    s.rows = tokens;
    s.positions = positions_.data();
    s.key_pages = &keys;
    s.value_pages = &values;
    s.length = position + tokens;
    attention(shape, std::span(&s, 1));
  }
  void project(const PackedMatrix& matrix, const float* x, int64_t columns, int64_t tokens, std::vector<float>& hidden) {
    activations_.quantize(x, tokens, columns, columns);
    residual_.resize(hidden.size());
    matmul_packed(matrix, activations_, residual_.data(), kHidden);
    for (size_t i = 0; i < hidden.size(); ++i) hidden[i] += residual_[i];
  }

  std::vector<Layer> layers_;
  PackedMatrix head_;
  std::vector<std::vector<std::byte>> key_cache_, value_cache_;
  std::vector<float> norm_, cos_, sin_, normed_, q_, k_, v_, gate_, up_, residual_, logits_;
  std::vector<int64_t> positions_;
  QuantizedActivations activations_;
};

void run_stack(const MachineLimits& limits, Rng& rng) {
  Stack stack(rng);
  const auto input = random_floats(256 * Stack::kHidden, rng);
  const double prefill = good_seconds([&] { stack.step(input, 256, 0); });
  const double decode = good_seconds([&] { stack.step(input, 1, 256); });
  const double batch = good_seconds([&] { stack.step(input, 8, 256); });
  const double bytes = static_cast<double>(stack.bytes()) + 30.0 * 2 * 257 * Stack::kKv * 2;
  fmt::print(
      "SmolLM2-135M stack (4 bits with minimums, head 8 bits, {:.0f} MB): prefill 256 {:.0f} tokens/s ({:.0f} % of the 4-bit inner loop), "
      "decode at 256 {:.1f} tokens/s ({:.0f} % of bandwidth), 8 tokens at once {:.0f} tokens/s\n",
      1e-6 * static_cast<double>(stack.bytes()), 256 / prefill, 100 * 256 * stack.layer_macs() / prefill / limits.integer_peak_4bit, 1 / decode,
      100 * bytes / decode / limits.read_bandwidth, 8 / batch);
}

void run_float(const MachineLimits& limits, Rng& rng) {
  constexpr int64_t kRows = 1536, kColumns = 576;
  const auto weights = random_floats(kRows * kColumns, rng);
  std::vector<uint16_t> halves(weights.size());
  kernels().to_f16(weights.data(), halves.data(), kRows * kColumns);
  const auto x = random_floats(256 * kColumns, rng);
  std::vector<float> out(256 * kRows);
  for (const FloatType type : {FloatType::f32, FloatType::f16}) {
    const FloatMatrix matrix{type == FloatType::f32 ? static_cast<const void*>(weights.data()) : halves.data(), type, kRows, kColumns, 0};
    const double seconds = good_seconds([&] { matmul_float(matrix, {x.data(), 0, 256, out.data(), 0}); });
    const double rate = 256.0 * kRows * kColumns / seconds;
    fmt::print("float product {} 256 x 576 x 1536: {:.1f} GFLOP/s ({:.0f} % of the peak)\n", type == FloatType::f32 ? "f32" : "f16", 2e-9 * rate,
               100 * rate / limits.float_peak);
  }
}

void run_attention(const MachineLimits& limits, Rng& rng) {
  constexpr int64_t kLength = 8192, kPage = 64, kRows = 512;
  const auto entries = random_floats(kPage * 192, rng), q = random_floats(kRows * 576, rng);
  std::vector<float> out(q.size());
  std::vector<int64_t> positions;
  for (int64_t r = 0; r < kRows; ++r) positions.push_back(kLength - kRows + r);
  for (const CacheType type : {CacheType::f32, CacheType::f16, CacheType::int8}) {
    const CacheLayout layout = {type, 3, 64, kPage};
    std::vector<std::byte> keys(static_cast<size_t>(layout.page_bytes())), values(keys.size());
    write_cache(CachePart::keys, layout, entries.data(), kPage, keys.data(), 0);
    write_cache(CachePart::values, layout, entries.data(), kPage, values.data(), 0);
    // 12 layers, each with pages of its own: decode reads memory.
    std::vector<std::vector<std::byte>> pages;
    std::vector<const void*> pointers;
    for (int64_t i = 0; i < 12 * 2 * kLength / kPage; ++i) pages.push_back(i / (kLength / kPage) % 2 == 0 ? keys : values);
    for (const auto& page : pages) pointers.push_back(page.data());
    AttentionShape shape;
    shape.heads = 9;
    shape.kv_heads = 3;
    shape.head_dim = 64;
    shape.scale = 0.125f;
    shape.cache = type;
    shape.page_size = kPage;
    int64_t layer = 0;
    const auto attend = [&](int64_t count) {
      AttentionSequence s;
      s.q = q.data();
      s.out = out.data();
      s.rows = count;
      s.positions = positions.data() + (kRows - count);
      s.key_pages = pointers.data() + layer * 2 * kLength / kPage;
      s.value_pages = s.key_pages + kLength / kPage;
      s.length = kLength;
      attention(shape, std::span(&s, 1));
      layer = (layer + 1) % 12;
    };
    const double decode = good_seconds([&] { attend(1); });
    const double prefill = good_seconds([&] { attend(kRows); });
    const double bytes = 2.0 * static_cast<double>(layout.page_bytes()) * kLength / kPage;
    fmt::print("attention 9/3 heads x 64, 8192 entries {}: decode {:.2f} GB/s ({:.0f} % of bandwidth); {} rows {:.1f} GFLOP/s ({:.0f} % of the peak)\n",
               type == CacheType::f32   ? "f32"
               : type == CacheType::f16 ? "f16"
                                        : "int8",
               1e-9 * bytes / decode, 100 * bytes / decode / limits.read_bandwidth, kRows, 4e-9 * kRows * 576 * kLength / prefill,
               100.0 * 2 * kRows * 576 * kLength / prefill / limits.float_peak);
  }
}

int run(int argc, char** argv) {
  if (argc > 1) set_team_size(std::atoi(argv[1]));
  const std::string what = argc > 2 ? argv[2] : "all";
  Rng rng(1);
  const MachineLimits limits = measure_machine();
  fmt::print("{} threads, {} ({}): reads {:.1f} GB/s, int8 {:.0f} GOP/s, 4-bit weights {:.0f} GOP/s, fp32 {:.0f} GFLOP/s\n", limits.threads, limits.isa,
             limits.features, 1e-9 * limits.read_bandwidth, 2e-9 * limits.integer_peak, 2e-9 * limits.integer_peak_4bit, 2e-9 * limits.float_peak);
  if (what == "all" || what == "layers") run_stack(limits, rng);
  if (what == "all" || what == "attention") {
    run_float(limits, rng);
    run_attention(limits, rng);
  }
  if (what == "all" || what == "ladder") {
    for (const int bits : {2, 3, 4, 5, 6, 8}) ladder_row(Weight(1536, 576, bits, 32, bits == 4, rng), limits, rng);
    for (const int bits : {4, 8}) ladder_row(Weight(2048, 2048, bits, 32, false, rng), limits, rng);
    ladder_row(Weight(2048, 5632, 4, 128, false, rng), limits, rng);
    ladder_row(Weight(5632, 2048, 6, 16, false, rng), limits, rng);
  }
  return 0;
}

}  // namespace
}  // namespace frugal::kernels

int main(int argc, char** argv) {
  try {
    return frugal::kernels::run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
