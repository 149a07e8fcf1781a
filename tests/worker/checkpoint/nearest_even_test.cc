// SPDX-License-Identifier: Apache-2.0
#include "worker/checkpoint/nearest_even.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <gtest/gtest.h>

namespace temper {
namespace {

// Steps through all of fp32 in a stride that meets every exponent, plus the neighbourhood of every rounding border.
template <typename Visit>
void ForManyFloats(Visit visit) {
  for (uint64_t bits = 0; bits < (1ull << 32); bits += 9973) visit(static_cast<uint32_t>(bits));
  for (uint32_t high = 0; high < (1u << 16); high += 7) {
    for (uint32_t low : {0u, 1u, 0x0fffu, 0x1000u, 0x1001u, 0x1fffu, 0x3000u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      visit(high << 16 | low);
    }
  }
}

TEST(NearestEven, Bfloat16_EqualsTorch) {
  ForManyFloats([](uint32_t bits) {
    const float value = std::bit_cast<float>(bits);
    if (std::isnan(value)) return;
    ASSERT_EQ(NearestEvenBfloat16(value), c10::BFloat16(value).x) << bits;
  });
}

TEST(NearestEven, Half_EqualsTorch) {
  ForManyFloats([](uint32_t bits) {
    const float value = std::bit_cast<float>(bits);
    if (std::isnan(value)) return;
    ASSERT_EQ(NearestEvenHalf(value), c10::Half(value).x) << bits;
  });
}

TEST(NearestEven, Nan_StaysNan) {
  const float nan = std::bit_cast<float>(0x7f800001u);
  EXPECT_TRUE(std::isnan(static_cast<float>(c10::BFloat16(NearestEvenBfloat16(nan), c10::BFloat16::from_bits()))));
  EXPECT_TRUE(std::isnan(static_cast<float>(c10::Half(NearestEvenHalf(nan), c10::Half::from_bits()))));
}

}  // namespace
}  // namespace temper
