// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace temper::ops {

// How a gated feed-forward layer joins its gate g and its other half u.
enum class Activation {
  kSilu,           // g·σ(g) · u
  kGeluTanh,       // gelu(g) · u, by its tanh approximation
  kGelu,           // gelu(g) · u
  kClampedSwiGlu,  // g·σ(1.702 g) · (u + 1), with g ≤ 7 and |u| ≤ 7 (gpt-oss)
};

}  // namespace temper::ops
