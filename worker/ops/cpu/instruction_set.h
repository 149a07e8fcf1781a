// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace temper::ops::cpu {

// Which of the kernels in this folder an operator runs.
enum class InstructionSet {
  kNone,    // none: the operators' plain ATen code
  kAvx2,    // with FMA
  kAvx512,  // F, BW, DQ, VL
};

// The most that the CPU has; or less, if the environment variable TEMPER_CPU_KERNELS says `none` or `avx2` (read once).
InstructionSet Kernels();

// Another choice from now on, for tests and benchmarks: no operator may run meanwhile. Nothing above Kernels() at
// start.
void UseKernels(InstructionSet instruction_set);

// The table of kernels to use; not for kNone.
template <typename Table>
const Table& Choose(const Table& avx2, const Table& avx512) {
  return Kernels() == InstructionSet::kAvx512 ? avx512 : avx2;
}

std::string_view Name(InstructionSet instruction_set);

}  // namespace temper::ops::cpu
