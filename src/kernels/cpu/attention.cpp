#include "kernels/cpu/attention.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "base/checked.h"
#include "kernels/cpu/aligned_buffer.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/work_queue.h"

namespace frugal::kernels {
namespace {

// Queries that share one copy of a tile of the cache. 32 x 128 floats of queries and as many of results stay in the L2 cache.
constexpr int64_t kQueriesPerBlock = 32;

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

void check_positive(int64_t value, int64_t limit, const char* name) {
  if (value < 1 || value > limit) fail(ErrorKind::invalid_input, "attention: {} must be in 1..{}, is {}", name, limit, value);
}

AttentionShape resolve(AttentionShape s) {
  check_positive(s.heads, 1 << 16, "heads");
  check_positive(s.kv_heads, s.heads, "kv_heads");
  check_positive(s.head_dim, 1024, "head_dim");
  if (s.value_dim == 0) s.value_dim = s.head_dim;
  check_positive(s.value_dim, 1024, "value_dim");
  check_positive(s.page_size, int64_t{1} << 40, "page_size");
  if (s.page_size % kAttentionTile != 0)
    fail(ErrorKind::invalid_input, "attention: pages of {} entries, a multiple of {} is needed", s.page_size, kAttentionTile);
  if (s.heads % s.kv_heads != 0) fail(ErrorKind::invalid_input, "attention: {} heads over {} kv heads", s.heads, s.kv_heads);
  if (s.window < 0 || !(s.softcap >= 0)) fail(ErrorKind::invalid_input, "attention: window {}, softcap {}", s.window, s.softcap);
  return s;
}

AttentionSequence resolve(const AttentionShape& shape, AttentionSequence s) {
  if (s.q_stride == 0) s.q_stride = shape.heads * shape.head_dim;
  if (s.out_stride == 0) s.out_stride = shape.heads * shape.value_dim;
  if (s.rows < 0 || s.length < 0 || s.q_stride < shape.heads * shape.head_dim || s.out_stride < shape.heads * shape.value_dim) {
    fail(ErrorKind::invalid_input, "attention: {} rows, {} entries, strides {} and {}", s.rows, s.length, s.q_stride, s.out_stride);
  }
  for (int64_t r = 0; r < s.rows; ++r) {
    if (s.positions[r] >= s.length) {
      fail(ErrorKind::invalid_input, "attention: row {} is at position {} of a cache of {} entries", r, s.positions[r], s.length);
    }
  }
  return s;
}

// A block of rows of one sequence and one kv head; the entries that some row of it sees.
struct Block {
  const AttentionSequence* sequence;
  int64_t row, rows, kv_head;
  int64_t entry_begin, entry_end;
  int64_t first_part = 0;  // index of its first partial result, when chunks run apart
  int64_t chunk_begin() const { return entry_begin / kAttentionChunk; }
  int64_t chunk_end() const { return (entry_end + kAttentionChunk - 1) / kAttentionChunk; }
};

class Attention {
 public:
  Attention(const AttentionShape& shape, std::span<const AttentionSequence> sequences) : shape_(shape), group_(shape.heads / shape.kv_heads) {
    const int64_t rows_per_block = std::max<int64_t>(1, kQueriesPerBlock / group_);
    int64_t rows = 0;
    for (const AttentionSequence& sequence : sequences) rows = std::max(rows, sequence.rows);
    queries_ = std::min(rows_per_block, rows) * group_;
    padded_value_ = round_up(shape.value_dim, kAttentionLanes);
    for (const AttentionSequence& sequence : sequences) {
      for (int64_t row = 0; row < sequence.rows; row += rows_per_block) add_blocks(sequence, row, std::min(rows_per_block, sequence.rows - row));
    }
  }

  void run() {
    int64_t entries = 0, most = 0, parts = 0;
    for (Block& block : blocks_) {
      const int64_t own = (block.entry_end - block.entry_begin) * block.rows;
      entries += own;
      most = std::max(most, own);
      block.first_part = parts;
      parts += block.chunk_end() - block.chunk_begin();
    }
    const auto count = static_cast<int64_t>(blocks_.size());
    const bool parallel = entries * group_ * (shape_.head_dim + shape_.value_dim) > 32768;
    // Whole blocks where there are enough of them and none is so large that others would wait for it.
    if (!parallel || parts == count || (count >= 4 * team_size() && most * 4 * team_size() <= entries)) {
      for_each_chunk(count, 1, parallel, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) run_block(blocks_[static_cast<size_t>(i)]);
      });
    } else {
      run_chunks(parts);
    }
  }

 private:
  // The state of a block's queries: maximum, sum and value, in one run of floats.
  int64_t state_floats() const { return round_up(2 * queries_ + queries_ * padded_value_, 16); }
  float* sum_of(float* state) const { return state + queries_; }
  float* value_of(float* state) const { return state + 2 * queries_; }
  int64_t scratch_floats() const { return kAttentionTile * (shape_.head_dim + padded_value_) + queries_ * (shape_.head_dim + kAttentionTile + 1); }

  void add_blocks(const AttentionSequence& sequence, int64_t row, int64_t rows) {
    int64_t end = 0, begin = std::numeric_limits<int64_t>::max();
    for (int64_t r = row; r < row + rows; ++r) {
      const int64_t position = sequence.positions[r];
      if (position < 0) continue;
      end = std::max(end, position + 1);
      begin = std::min(begin, shape_.window > 0 ? std::max<int64_t>(0, position - shape_.window + 1) : 0);
    }
    if (end == 0) begin = 0;
    begin = begin / kAttentionTile * kAttentionTile;
    for (int64_t head = 0; head < shape_.kv_heads; ++head) blocks_.push_back({&sequence, row, rows, head, begin, end});
  }

  void run_chunk(const Block& block, int64_t chunk, float* scratch, float* state) const {
    const AttentionSequence& s = *block.sequence;
    AttentionArguments a;
    a.shape = &shape_;
    a.key_pages = s.key_pages;
    a.value_pages = s.value_pages;
    a.key_block_bytes = block_bytes(shape_.head_dim);
    a.value_block_bytes = block_bytes(shape_.value_dim);
    a.kv_head = block.kv_head;
    a.q = s.q + block.row * s.q_stride + block.kv_head * group_ * shape_.head_dim;
    a.q_stride = s.q_stride;
    a.positions = s.positions + block.row;
    a.rows = block.rows;
    a.entry_begin = std::max(block.entry_begin, chunk * kAttentionChunk);
    a.entry_end = std::min(block.entry_end, (chunk + 1) * kAttentionChunk);
    a.scratch = scratch;
    a.padded_value = padded_value_;
    a.maximum = state;
    a.sum = sum_of(state);
    a.value = value_of(state);
    kernels().attention(a);
  }

  int64_t block_bytes(int64_t dim) const { return CacheLayout{shape_.cache, 1, dim, shape_.page_size}.block_bytes(); }

  void start(float* state) const {
    std::fill(state, state + queries_, -std::numeric_limits<float>::infinity());
    std::fill(state + queries_, state + state_floats(), 0.0f);
  }

  void merge(const Block& block, float* total, float* part) const {
    kernels().attention_merge(total, sum_of(total), value_of(total), part, sum_of(part), value_of(part), block.rows * group_, padded_value_);
  }

  void finish(const Block& block, float* state) const {
    const AttentionSequence& s = *block.sequence;
    for (int64_t q = 0; q < block.rows * group_; ++q) {
      float* out = s.out + (block.row + q / group_) * s.out_stride + (block.kv_head * group_ + q % group_) * shape_.value_dim;
      const float sum = sum_of(state)[q];
      const float factor = sum == 0 ? 0.0f : 1.0f / sum;
      for (int64_t d = 0; d < shape_.value_dim; ++d) out[d] = value_of(state)[q * padded_value_ + d] * factor;
    }
  }

  // Buffers of a thread, kept between calls: one for a chunk's own work, one for states that several threads fill.
  enum class Use { own, shared };
  template <Use>
  static float* workspace(int64_t floats) {
    thread_local AlignedBuffer buffer;
    buffer.reserve(static_cast<uint64_t>(floats) * sizeof(float));
    return reinterpret_cast<float*>(buffer.data());
  }

  void run_block(const Block& block) const {
    float* scratch = workspace<Use::own>(round_up(scratch_floats(), 16) + 2 * state_floats());
    float* part = scratch + round_up(scratch_floats(), 16);
    float* total = part + state_floats();
    if (block.chunk_end() - block.chunk_begin() == 1) {  // a merge with nothing changes nothing
      run_chunk(block, block.chunk_begin(), scratch, part);
      return finish(block, part);
    }
    start(total);
    for (int64_t chunk = block.chunk_begin(); chunk < block.chunk_end(); ++chunk) {
      run_chunk(block, chunk, scratch, part);
      merge(block, total, part);
    }
    finish(block, total);
  }

  void run_chunks(int64_t parts) {
    checked_mul(checked_mul(static_cast<uint64_t>(parts) + 1, static_cast<uint64_t>(state_floats()), "attention parts"), uint64_t{4}, "attention parts");
    float* states = workspace<Use::shared>((parts + 1) * state_floats());
    std::vector<const Block*> owner(static_cast<size_t>(parts));
    for (const Block& block : blocks_) {
      for (int64_t i = 0; i < block.chunk_end() - block.chunk_begin(); ++i) owner[static_cast<size_t>(block.first_part + i)] = &block;
    }
    for_each_chunk(parts, 1, true, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Block& block = *owner[static_cast<size_t>(i)];
        run_chunk(block, block.chunk_begin() + i - block.first_part, workspace<Use::own>(scratch_floats()), states + i * state_floats());
      }
    });
    float* total = states + parts * state_floats();
    for (const Block& block : blocks_) {
      start(total);
      for (int64_t i = 0; i < block.chunk_end() - block.chunk_begin(); ++i) merge(block, total, states + (block.first_part + i) * state_floats());
      finish(block, total);
    }
  }

  AttentionShape shape_;
  int64_t group_;
  int64_t queries_ = 0;
  int64_t padded_value_ = 0;
  std::vector<Block> blocks_;
};

}  // namespace

void attention(const AttentionShape& shape, std::span<const AttentionSequence> sequences) {
  const AttentionShape resolved = resolve(shape);
  std::vector<AttentionSequence> own;
  own.reserve(sequences.size());
  for (const AttentionSequence& sequence : sequences) own.push_back(resolve(resolved, sequence));
  Attention(resolved, own).run();
}

}  // namespace frugal::kernels
