// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "worker/ops/adamw_factors.h"

namespace temper::ops::cpu {

// `size` elements of each, in place; `gradient` is read only. Of a split master (worker/ops/master_split.h), `high` are
// the bits of a bf16.
struct AdamWKernels {
  void (*update)(const AdamWFactors& factors, int64_t size, float* master, const float* gradient, float* first_moment,
                 float* second_moment);
  void (*update_split)(const AdamWFactors& factors, int64_t size, uint16_t* high, int16_t* low, const float* gradient,
                       float* first_moment, float* second_moment);
};

namespace avx2 {
extern const AdamWKernels kAdamW;
}
namespace avx512 {
extern const AdamWKernels kAdamW;
}

}  // namespace temper::ops::cpu
