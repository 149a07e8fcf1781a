// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/Context.h>

namespace temper {

// While it lives, memory that at::empty gives is full of NaN.
class PoisonedMemory {
 public:
  PoisonedMemory() { Set(true); }
  ~PoisonedMemory() { Set(false); }
  PoisonedMemory(const PoisonedMemory&) = delete;

 private:
  static void Set(bool on) {
    at::globalContext().setDeterministicAlgorithms(on, /*warn_only=*/true);
    at::globalContext().setDeterministicFillUninitializedMemory(on);
  }
};

template <typename Compute>
auto InPoisonedMemory(const Compute& compute) {
  const PoisonedMemory poisoned;
  return compute();
}

}  // namespace temper
