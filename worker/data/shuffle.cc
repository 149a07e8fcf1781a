// SPDX-License-Identifier: Apache-2.0
#include "worker/data/shuffle.h"

#include <numeric>
#include <utility>

namespace temper {
namespace {

constexpr uint64_t kGolden = 0x9e3779b97f4a7c15;  // 2^64 / golden ratio

uint64_t SplitMix64(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// The high half of the product: uniform over [0, bound) up to bound / 2^64.
uint64_t ScaledTo(uint64_t bound, uint64_t random) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(random) * bound) >> 64);
}

}  // namespace

std::vector<int64_t> ShuffledOrder(int64_t size, uint64_t seed, int64_t epoch) {
  std::vector<int64_t> order(size);
  std::iota(order.begin(), order.end(), 0);
  const uint64_t key = SplitMix64(SplitMix64(seed + kGolden) + static_cast<uint64_t>(epoch) * kGolden);
  for (int64_t i = size - 1; i > 0; --i) {
    const uint64_t random = SplitMix64(key + static_cast<uint64_t>(i) * kGolden);
    std::swap(order[i], order[ScaledTo(i + 1, random)]);
  }
  return order;
}

double UniformHash(uint64_t seed, int source, int64_t ordinal) {
  // Another key than ShuffledOrder's, whose epochs are not negative.
  const uint64_t key = SplitMix64(SplitMix64(seed + kGolden) - static_cast<uint64_t>(source + 1) * kGolden);
  return static_cast<double>(SplitMix64(key + static_cast<uint64_t>(ordinal) * kGolden) >> 11) * 0x1p-53;
}

}  // namespace temper
