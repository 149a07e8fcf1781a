// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace temper::ops {

// What happens to the LM head's product before the softmax.
struct LogitConfig {
  double scale = 1.0;
  // Above 0: softcap · tanh(logit / softcap), after the scale.
  double softcap = 0.0;

  bool operator==(const LogitConfig&) const = default;
};

}  // namespace temper::ops
