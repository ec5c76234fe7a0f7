// How fast a model reads a prompt and decodes, as llama-bench counts: tokens a second without tokenization and sampling,
// after one warm-up, every repetition on its own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nn/model.h"

namespace frugal::eval {

struct SpeedTest {
  std::string name;       // "pp512", "tg128", "tg128 @ d512", "pp512+tg128", "tg128 x 8"
  int64_t prompt = 0;     // tokens read at once
  int64_t generated = 0;  // then decoded one by one
  int64_t depth = 0;      // tokens already in the cache, not timed
  int64_t ubatch = 512;   // most tokens of one forward
  nn::CacheType cache = nn::CacheType::f16;
  int64_t streams = 1;  // sequences that do this together: prompts one after the other, then a token of each per forward
};

struct SpeedResult {
  SpeedTest test;
  std::vector<double> tokens_per_second;  // of each repetition, all streams together
  double mean() const;
  double standard_deviation() const;
};

// The model must be in the execution form that is to be measured. Throws Interrupted.
SpeedResult measure_speed(const nn::Model& model, const SpeedTest& test, int repetitions);

// For the shares of bandwidth and peak: bytes that one decoded token reads, weights in the form that they have now; and
// multiply-adds that one token of a prompt costs, those of packed weights of up to 4 bits apart, which a machine may do faster.
uint64_t bytes_per_decoded_token(const nn::Model& model);
struct MultiplyAdds {
  uint64_t up_to_4_bits = 0, wider = 0;
};
MultiplyAdds multiply_adds_per_token(const nn::Model& model);

}  // namespace frugal::eval
