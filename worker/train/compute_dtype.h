// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/ScalarType.h>

#include "worker/ops/matmul_peak.h"
#include "worker/train/train_job.h"

namespace temper {

// What weights and activations are computed in.
inline at::ScalarType ComputeDtype(Precision precision) {
  switch (precision) {
    case Precision::kFp32:
      return at::kFloat;
    case Precision::kBf16:
      return at::kBFloat16;
    case Precision::kAuto:
      break;
  }
  return ops::CpuHasNativeBf16() ? at::kBFloat16 : at::kFloat;
}

}  // namespace temper
