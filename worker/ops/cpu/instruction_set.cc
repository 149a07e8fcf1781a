// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/cpu/instruction_set.h"

#include <cstdlib>
#include <string_view>

namespace temper::ops::cpu {
namespace {

InstructionSet Choose() {
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const char* const variable = std::getenv("TEMPER_CPU_KERNELS");
  const std::string_view most = variable == nullptr ? "" : variable;
  if (most == "none" || !avx2) return InstructionSet::kNone;
  return most == "avx2" || !avx512 ? InstructionSet::kAvx2 : InstructionSet::kAvx512;
}

InstructionSet& Chosen() {
  static InstructionSet chosen = Choose();
  return chosen;
}

}  // namespace

InstructionSet Kernels() { return Chosen(); }

void UseKernels(InstructionSet instruction_set) { Chosen() = instruction_set; }

std::string_view Name(InstructionSet instruction_set) {
  switch (instruction_set) {
    case InstructionSet::kNone:
      return "ATen";
    case InstructionSet::kAvx2:
      return "AVX2";
    case InstructionSet::kAvx512:
      return "AVX-512";
  }
  return "";
}

}  // namespace temper::ops::cpu
