// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace temper::ops {

// How rotary position embeddings (Su et al. 2021) turn positions into angles.
struct RopeConfig {
  enum class Kind {
    kDefault,   // theta^(-2i/d)
    kLinear,    // positions divided by `factor`
    kLlama3,    // long wavelengths divided by `factor`, short ones kept, a ramp between (Llama 3.1)
    kDynamic,   // theta grows with a document that is longer than original_max_positions (NTK)
    kYarn,      // Peng et al. 2023
    kLongRope,  // each pair has a divisor of its own, other ones in documents over original_max_positions (Ding et al.
                // 2024)
  };
  Kind kind = Kind::kDefault;
  double theta = 10000.0;
  // The share of a head's dimensions that is rotated; the others, at its end, stay as they are.
  double rotated_share = 1.0;
  double factor = 1.0;
  // Positions that the model saw before its context was extended.
  int64_t original_max_positions = 0;
  // kLlama3: wavelengths over original/low are scaled, below original/high kept.
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  // kYarn.
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  bool truncate = true;  // round the ramp's ends to whole dimensions
  // kYarn and kLongRope: cos and sin are multiplied by it.
  double attention_factor = 1.0;
  // kLongRope: a divisor a pair.
  std::vector<double> short_factors;
  std::vector<double> long_factors;

  int64_t rotated_dims(int64_t head_dim) const { return static_cast<int64_t>(head_dim * rotated_share); }

  bool operator==(const RopeConfig&) const = default;
};

}  // namespace temper::ops
