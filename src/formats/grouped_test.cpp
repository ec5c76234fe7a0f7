#include "formats/grouped.h"

#include <cmath>
#include <functional>

#include "base/error.h"
#include "formats/golden_test.h"

namespace frugal::formats {
namespace {

GroupedWeight random_grouped(const GroupedShape& shape, std::mt19937& random) {
  GroupedWeight weight = make_grouped(shape);
  std::vector<uint8_t> codes(static_cast<size_t>(shape.columns));
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (uint8_t& code : codes) code = static_cast<uint8_t>(random() % (1u << shape.bits));
    pack_row(weight, row, codes.data());
  }
  for (float& scale : weight.scales) scale = static_cast<float>(random() % 1000) / 1024.0f;
  for (float& zero : weight.zeros) zero = static_cast<float>(random() % (1u << shape.bits));
  return weight;
}

TEST(Grouped, PacksAndUnpacksEveryWidthAndRaggedLength) {
  std::mt19937 random(test_seed());
  for (int bits = 1; bits <= 8; ++bits) {
    for (const int64_t columns :
         {int64_t{1}, int64_t{5}, int64_t{31}, int64_t{32}, int64_t{33}, int64_t{64}, int64_t{100}, 1 + static_cast<int64_t>(random() % 300)}) {
      GroupedWeight weight = make_grouped({3, columns, bits, columns, true});
      std::vector<std::vector<uint8_t>> rows(3, std::vector<uint8_t>(static_cast<size_t>(columns)));
      for (int64_t row = 0; row < 3; ++row) {
        for (uint8_t& code : rows[static_cast<size_t>(row)]) code = static_cast<uint8_t>(random() % (1u << bits));
        pack_row(weight, row, rows[static_cast<size_t>(row)].data());
      }
      for (int64_t row = 0; row < 3; ++row) {
        std::vector<uint8_t> codes(static_cast<size_t>(columns));
        unpack_row(weight, row, codes.data());
        ASSERT_EQ(codes, rows[static_cast<size_t>(row)]) << bits << " bits, " << columns << " columns, seed " << test_seed();
      }
    }
  }
}

TEST(Grouped, PacksRowsAndZerosAsCompressedTensorsDoes) {
  for (int bits = 1; bits <= 8; ++bits) {
    const std::string name = fmt::format("pack/{}", bits);
    const auto codes = formats_golden().read<uint8_t>(name + ".codes");  // [5, 75]
    GroupedWeight weight = make_grouped({5, 75, bits, 1, false});
    for (int64_t row = 0; row < 5; ++row) pack_row(weight, row, codes.data() + row * 75);
    EXPECT_EQ(weight.codes, formats_golden().read<uint32_t>(name + ".words")) << bits;
    for (size_t i = 0; i < codes.size(); ++i) weight.zeros[i] = codes[i];
    const std::vector<uint32_t> words = formats_golden().read<uint32_t>(name + ".words_down_the_rows");
    EXPECT_EQ(pack_zeros(weight), words) << bits;
    const std::vector<float> zeros = weight.zeros;
    unpack_zeros(words, weight, "w");
    EXPECT_EQ(weight.zeros, zeros);
  }
}

TEST(Grouped, DecodesByTheDefinitionForRaggedGroupsFloatZerosAndActOrder) {
  std::mt19937 random(test_seed());
  for (int bits = 1; bits <= 8; ++bits) {
    for (const int64_t group : {1, 7, 32, 77}) {
      for (const int kind : {0, 1, 2, 3}) {  // integer zeros, symmetric, float zeros, act-order
        GroupedWeight weight = random_grouped({2, 77, bits, group, kind == 1}, random);
        if (kind == 2) {
          weight.float_zeros = true;
          for (float& zero : weight.zeros) zero += 0.25f;
        }
        if (kind == 3) {
          for (int c = 0; c < 77; ++c) weight.group_index.push_back(static_cast<int32_t>(static_cast<int64_t>(random()) % weight.groups()));
        }
        validate(weight, "w");
        std::vector<float> values(77);
        std::vector<uint8_t> codes(77);
        for (int64_t row = 0; row < 2; ++row) {
          decode_row(weight, row, values.data());
          unpack_row(weight, row, codes.data());
          for (int64_t c = 0; c < 77; ++c) {
            const int64_t g = weight.group_of(c);
            const float zero = kind == 1 ? static_cast<float>(1 << (bits - 1)) : weight.zeros[static_cast<size_t>(row * weight.groups() + g)];
            ASSERT_EQ(values[static_cast<size_t>(c)],
                      (static_cast<float>(codes[static_cast<size_t>(c)]) - zero) * weight.scales[static_cast<size_t>(row * weight.groups() + g)]);
          }
        }
      }
    }
  }
}

TEST(Grouped, CountsTheBytesThatGoToDisk) {
  GroupedWeight weight = make_grouped({64, 256, 4, 128, true});
  EXPECT_EQ(weight.storage_bytes(), 64u * 128 + 64 * 2 * 2);
  weight.symmetric = false;
  EXPECT_EQ(weight.storage_bytes(), 64u * 128 + 64 * 2 * 2 + 64 * 2 / 2);
  weight.float_zeros = true;
  weight.group_index.resize(256);
  EXPECT_EQ(weight.storage_bytes(), 64u * 128 + 2 * 64 * 2 * 2 + 4 * 256);
}

TEST(Grouped, ValidationRefusesEverySizeRangeAndIndexThatDoesNotFit) {
  std::mt19937 random(test_seed());
  const GroupedWeight good = random_grouped({4, 40, 3, 16, false}, random);
  validate(good, "w");
  const std::vector<std::function<void(GroupedWeight&)>> damages = {
      [](GroupedWeight& w) { w.rows = -1; },
      [](GroupedWeight& w) { w.rows = int64_t{1} << 62; },
      [](GroupedWeight& w) { w.columns = 0; },
      [](GroupedWeight& w) { w.columns = int64_t{1} << 61; },
      [](GroupedWeight& w) { w.bits = 0; },
      [](GroupedWeight& w) { w.bits = 9; },
      [](GroupedWeight& w) { w.group_size = 0; },
      [](GroupedWeight& w) { w.group_size = -16; },
      [](GroupedWeight& w) { w.group_size = 41; },
      [](GroupedWeight& w) { w.group_size = 8; },
      [](GroupedWeight& w) { w.codes.pop_back(); },
      [](GroupedWeight& w) { w.scales.push_back(0); },
      [](GroupedWeight& w) { w.zeros.clear(); },
      [](GroupedWeight& w) { w.zeros[3] = 8.0f; },
      [](GroupedWeight& w) { w.zeros[3] = -1.0f; },
      [](GroupedWeight& w) { w.zeros[3] = 0.5f; },
      [](GroupedWeight& w) { w.zeros[3] = std::nanf(""); },
      [](GroupedWeight& w) { w.symmetric = true; },
      [](GroupedWeight& w) { w.scale_format = "Q4_0"; },
      [](GroupedWeight& w) { w.scale_format = "I32"; },
      [](GroupedWeight& w) { w.scale_format = "F17"; },
      [](GroupedWeight& w) { w.group_index.assign(39, 0); },
      [](GroupedWeight& w) { w.group_index.assign(40, 3); },
      [](GroupedWeight& w) { w.group_index.assign(40, -1); },
  };
  for (size_t i = 0; i < damages.size(); ++i) {
    GroupedWeight bad = good;
    damages[i](bad);
    EXPECT_THROW(validate(bad, "w"), Error) << "damage " << i;
  }
  EXPECT_THROW(make_grouped({4, 40, 9, 16, false}), Error);
  GroupedWeight weight = good;
  EXPECT_THROW(unpack_zeros({1, 2}, weight, "w"), Error);
}

}  // namespace
}  // namespace frugal::formats
