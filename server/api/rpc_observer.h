// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string_view>

#include "absl/status/status.h"

namespace temper {

// Told once per call how it ended: "CreateJob", and with which status. Any thread; quick.
using RpcObserver = std::function<void(std::string_view method, const absl::Status& status)>;

}  // namespace temper
