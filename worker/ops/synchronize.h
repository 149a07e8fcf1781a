// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/core/Device.h>

namespace temper::ops {

// Waits until a device has done all that it was given. On a CPU that is always so.
void Synchronize(at::Device device);

}  // namespace temper::ops
