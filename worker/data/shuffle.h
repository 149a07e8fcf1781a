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

// A number in [0, 1) for a record of a source: uniform over records, the same in every build.
double UniformHash(uint64_t seed, int source, int64_t ordinal);

}  // namespace temper
