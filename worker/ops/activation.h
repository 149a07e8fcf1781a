// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace temper::ops {

enum class Activation { kSilu, kGeluTanh, kGelu };

}  // namespace temper::ops
