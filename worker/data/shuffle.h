// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace temper {

// A permutation of 0 … size-1 that depends on seed and epoch alone: the same on every platform and in every build
// (std::shuffle and the standard distributions are not).
//
// Fisher-Yates; its i-th random number is the SplitMix64 hash (Steele, Lea, Flood 2014) of a key and i.
std::vector<int64_t> ShuffledOrder(int64_t size, uint64_t seed, int64_t epoch);

}  // namespace temper
