// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/ScalarType.h>

#include "worker/ops/matmul_peak.h"
#include "worker/train/train_job.h"

namespace temper {

// What weights and activations are computed in. GPUs that our attention runs on have bf16.
inline at::ScalarType ComputeDtype(Precision precision, DeviceKind device) {
  switch (precision) {
    case Precision::kFp32:
      return at::kFloat;
    case Precision::kBf16:
      return at::kBFloat16;
    case Precision::kAuto:
      break;
  }
  return device != DeviceKind::kCpu || ops::CpuHasNativeBf16() ? at::kBFloat16 : at::kFloat;
}

}  // namespace temper
