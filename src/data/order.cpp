#include "data/order.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <set>

#include "base/error.h"
#include "base/rng.h"

namespace frugal::data {
namespace {

constexpr uint64_t kGroup = 100'000;  // examples that are packed together, as in Axolotl: what a run holds and sorts at once

// What an order is drawn for: its permutations must not be those of another one.
enum class Stream : uint64_t { examples, sequences, split };

uint64_t seed_of(uint64_t seed, Stream stream) {
  Rng rng(seed);
  uint64_t value = rng.next();
  for (uint64_t i = 0; i < static_cast<uint64_t>(stream); ++i) value = rng.next();
  return value;
}

// The finisher of splitmix64: every bit of the result depends on all of the value.
uint64_t mixed(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EB;
  return value ^ (value >> 31);
}

uint64_t count_of(const Dataset& dataset) { return dataset.pairs ? dataset.size() / 2 : dataset.size(); }

uint64_t tokens_of(const Dataset& dataset, uint64_t id) {
  const uint64_t each = dataset.pairs ? 2 : 1;
  return dataset.offsets[(id + 1) * each] - dataset.offsets[id * each];
}

// Sequences of at most `most` tokens: the longest example first, each into the fullest sequence that still holds it. An example that
// is longer than that has a sequence of its own.
std::vector<MicroBatch> packed(const Dataset& dataset, MicroBatch ids, uint64_t most) {
  std::ranges::stable_sort(ids, [&](uint64_t a, uint64_t b) { return tokens_of(dataset, a) > tokens_of(dataset, b); });
  std::vector<MicroBatch> sequences;
  std::set<std::pair<uint64_t, size_t>> room;  // what is left in a sequence
  for (const uint64_t id : ids) {
    const uint64_t tokens = tokens_of(dataset, id);
    const auto fullest = room.lower_bound({tokens, 0});
    uint64_t left = most - std::min(most, tokens);
    size_t sequence = sequences.size();
    if (fullest == room.end()) {
      sequences.emplace_back();
    } else {
      left = fullest->first - tokens;
      sequence = fullest->second;
      room.erase(fullest);
    }
    sequences[sequence].push_back(id);
    room.emplace(left, sequence);
  }
  return sequences;
}

}  // namespace

Permutation::Permutation(uint64_t size, uint64_t seed, uint64_t epoch) : size_(size) {
  // At least 256 values: with fewer the rounds reach only some of the permutations.
  half_bits_ = std::max(4, (static_cast<int>(std::bit_width(size > 0 ? size - 1 : 0)) + 1) / 2);
  Rng rng(seed);
  Rng keys(rng.next() ^ mixed(epoch + 0x9E3779B97F4A7C15));
  for (uint64_t& key : keys_) key = keys.next();
}

uint64_t Permutation::operator()(uint64_t index) const {
  FRUGAL_ASSERT(index < size_);
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t value = index;
  do {
    uint64_t left = value >> half_bits_, right = value & mask;
    for (const uint64_t key : keys_) {
      const uint64_t next = left ^ (mixed(right ^ key) & mask);
      left = right;
      right = next;
    }
    value = left << half_bits_ | right;
  } while (value >= size_);
  return value;
}

std::vector<MicroBatch> batches(const Dataset& dataset, const BatchOptions& options, uint64_t epoch) {
  if (options.micro_batch_size == 0) fail(ErrorKind::invalid_input, "micro_batch_size must be at least 1, is 0");
  const uint64_t count = count_of(dataset);
  const Permutation order(count, seed_of(options.seed, Stream::examples), epoch);
  std::vector<MicroBatch> sequences;  // what a micro-batch has micro_batch_size of
  for (uint64_t begin = 0; begin < count; begin += kGroup) {
    MicroBatch ids;
    for (uint64_t i = begin; i < std::min(count, begin + kGroup); ++i) ids.push_back(order(i));
    if (options.sample_packing) {
      std::ranges::move(packed(dataset, std::move(ids), options.sequence_len), std::back_inserter(sequences));
    } else {
      for (const uint64_t id : ids) sequences.push_back({id});
    }
  }
  const Permutation shuffled(sequences.size(), seed_of(options.seed, Stream::sequences), epoch);
  std::vector<MicroBatch> result;
  for (uint64_t i = 0; i < sequences.size(); ++i) {
    if (i % options.micro_batch_size == 0) result.emplace_back();
    const MicroBatch& sequence = sequences[options.sample_packing ? shuffled(i) : i];
    result.back().insert(result.back().end(), sequence.begin(), sequence.end());
  }
  return result;
}

Split split(const Dataset& dataset, double val_set_size, uint64_t seed) {
  const uint64_t count = count_of(dataset);
  if (!(val_set_size >= 0) || val_set_size >= static_cast<double>(count)) {
    fail(ErrorKind::invalid_input, "val_set_size must be a share below 1 or a number below that of the examples, {}, is {}", count, val_set_size);
  }
  const double wanted = val_set_size < 1 ? std::ceil(val_set_size * static_cast<double>(count)) : val_set_size;
  const auto aside = std::min(static_cast<uint64_t>(wanted), count - 1);
  const Permutation order(count, seed_of(seed, Stream::split), 0);
  Split result;
  for (uint64_t i = 0; i < count; ++i) (i < aside ? result.validation : result.training).push_back(order(i));
  std::ranges::sort(result.training);
  std::ranges::sort(result.validation);
  return result;
}

}  // namespace frugal::data
