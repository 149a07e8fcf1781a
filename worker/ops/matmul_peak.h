// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

namespace temper::ops {

// FLOP/s that a device reaches on a large matrix product of `dtype`: the denominator of MFU. Measured, about 0.3 s; the
// best of several runs, because other work on the machine can only make a run slower. On a CPU it is a product of
// 1024 × 1024 × 1024 (256³ where that is slow) with torch's current number of threads, on a GPU one of 8192³.
double MeasureMatmulPeak(at::ScalarType dtype, at::Device device = at::kCPU);

// Whether the CPU multiplies bf16 matrices natively.
bool CpuHasNativeBf16();

}  // namespace temper::ops
