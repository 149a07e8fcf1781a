// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/ScalarType.h>

namespace temper::ops {

// FLOP/s that the CPU reaches on one 1024 × 1024 × 1024 matrix product (256³ where a product is slow) of `dtype` with
// torch's current number of threads: the denominator of MFU. Measured, about 0.3 s; the best of several runs, because
// other work on the machine can only make a run slower.
double MeasureMatmulPeak(at::ScalarType dtype);

// Whether the CPU multiplies bf16 matrices natively.
bool CpuHasNativeBf16();

}  // namespace temper::ops
