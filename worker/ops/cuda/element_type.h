// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace temper::ops::cuda {

// What a kernel reads and writes. Its arithmetic is fp32 either way.
enum class ElementType { kFloat, kBfloat16 };

}  // namespace temper::ops::cuda
