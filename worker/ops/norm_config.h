// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace temper::ops {

// An RMS norm (Zhang & Sennrich 2019): y = x / sqrt(mean(x²) + epsilon) · (weight + weight_offset).
struct NormConfig {
  double epsilon = 1e-6;
  // 1 where weights are stored as their distance from one (Gemma).
  double weight_offset = 0.0;
  // In bf16: whether the product with the weight is rounded alone, or also what is multiplied.
  bool rounds_once = false;

  bool operator==(const NormConfig&) const = default;
};

}  // namespace temper::ops
