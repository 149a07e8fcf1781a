// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <c10/util/Exception.h>

namespace temper::ops {

// Whether torch failed because there is no memory: of a GPU, or of the host, which it reports as a plain error.
bool IsOutOfMemory(const c10::Error& error);

}  // namespace temper::ops
