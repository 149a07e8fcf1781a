// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/vector_math.h"

#include <ATen/ATen.h>

#include "worker/ops/cpu/brgemm.h"

namespace temper::ops {

void InitializeVectorMath() {
  const at::NoGradGuard no_grad;
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    // As long as a vector register, and too short for a second thread.
    const at::Tensor x = at::full({64}, 0.5, dtype);
    for (const auto function : {at::exp, at::log, at::log1p, at::tanh, at::sin, at::cos, at::erf, at::sqrt}) {
      (void)function(x);
    }
  }
  cpu::HasBf16Brgemm();
}

}  // namespace temper::ops
