// The codebooks of the I-quants: facts of the formats. Each is a set of vectors of 8 (or 4) levels, numbered in ascending order
// of the number whose digits the levels are, the last level the most significant digit.
#pragma once

#include <cstdint>
#include <vector>

namespace frugal::formats {

struct Codebook {
  int width;                   // values per entry, 8 or 4
  std::vector<int8_t> values;  // [entries, width]

  const int8_t* entry(int number) const { return values.data() + number * width; }
};

// Built at the first call, then constant; safe from any thread.
const Codebook& codebook_iq2_xxs();  // 256 entries of {8, 25, 43}^8
const Codebook& codebook_iq2_xs();   // 512
const Codebook& codebook_iq2_s();    // 1024
const Codebook& codebook_iq3_xxs();  // 256 entries of {4, 12, 20, 28, 36, 44, 52, 62}^4
const Codebook& codebook_iq3_s();    // 512 entries of {1, 3, ..., 15}^4
const Codebook& codebook_iq1();      // 2048 entries of {-1, 0, 1}^8, IQ1_S and IQ1_M

}  // namespace frugal::formats
