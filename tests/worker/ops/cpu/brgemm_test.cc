// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/cpu/brgemm.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstdlib>
#include <fstream>
#include <new>
#include <string>
#include <vector>

namespace temper::ops::cpu {
namespace {

// From now on, no memory is to be had.
void TakeNoMoreMemory() {
  std::ifstream status("/proc/self/status");
  rlim_t used_kb = 0;
  for (std::string field; status >> field;) {
    if (field == "VmData:") status >> used_kb;
  }
  const rlimit limit = {used_kb << 10, RLIM_INFINITY};
  setrlimit(RLIMIT_DATA, &limit);
}

// Exit status 0: as it should be.
[[noreturn]] void MultiplyWithoutMemory() {
  constexpr int64_t kSize = 48;
  const std::vector<float> ones(kSize * kSize, 1.0f);
  std::vector<float> product(kSize * kSize);
  const GemmShape known = {32, 32, 32, 32, 32, 32};
  Brgemm(known, /*add=*/false, ones.data(), ones.data(), product.data());
  TakeNoMoreMemory();
  Brgemm(known, /*add=*/false, ones.data(), ones.data(), product.data());
  if (product[0] != 32) std::_Exit(1);
  try {
    Brgemm({kSize, kSize, kSize, kSize, kSize, kSize}, /*add=*/false, ones.data(), ones.data(), product.data());
  } catch (const std::bad_alloc&) {
    std::_Exit(0);
  }
  std::_Exit(2);
}

TEST(BrgemmDeathTest, NoMemoryToCompileAShape_ThrowsInsteadOfCrashing) {
  EXPECT_EXIT(MultiplyWithoutMemory(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace temper::ops::cpu
