// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "worker/ops/adamw_factors.h"

namespace temper::ops::cuda {

// `size` elements of each, in place; `gradient` is read only.
void AdamW(const AdamWFactors& factors, int64_t size, float* master, const float* gradient, float* first_moment,
           float* second_moment, cudaStream_t stream);

// The same for masters in two halves (master_split.h): `high` is bf16.
void AdamWSplit(const AdamWFactors& factors, int64_t size, uint16_t* high, int16_t* low, const float* gradient,
                float* first_moment, float* second_moment, cudaStream_t stream);

}  // namespace temper::ops::cuda
