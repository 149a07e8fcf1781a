// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace temper::ops {

// AdamWCoefficients, with all that does not depend on the element already computed.
struct AdamWFactors {
  float gradient_scale;
  float decay;        // 1 − learning rate · weight decay
  float first_share;  // 1 − beta1
  float beta2;
  float second_share;        // 1 − beta2
  float inverse_correction;  // 1 / sqrt(1 − beta2^step)
  float epsilon;
  float step_size;  // learning rate / (1 − beta1^step)
};

}  // namespace temper::ops
