// SPDX-License-Identifier: Apache-2.0
#include "worker/ops/synchronize.h"

#include <c10/core/impl/VirtualGuardImpl.h>

namespace temper::ops {

void Synchronize(at::Device device) {
  if (device.is_cpu()) return;
  const c10::impl::VirtualGuardImpl backend(device.type());
  backend.synchronizeDevice(device.has_index() ? device.index() : backend.getDevice().index());
}

}  // namespace temper::ops
