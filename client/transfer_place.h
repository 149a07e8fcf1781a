// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <stop_token>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

namespace temper {

struct PlaceOptions {
  // From when the server had no place for the first time.
  absl::Duration patience = absl::Minutes(10);
  std::stop_token stop;
};

// Told that the server has no place for a transfer, and that it is waited for.
using WaitingForPlace = absl::FunctionRef<void(const absl::Status& why)>;

// Calls `transfer`, again and again (client/pauses.h) while it ends with TOO_MANY_STREAMS: the server has no place for
// it now, since the caller or all callers together have as many uploads and downloads open as they may. `waiting` is
// told why, once. Returns what the last one ended with, or CANCELLED.
absl::Status AwaitPlace(const PlaceOptions& options, absl::FunctionRef<absl::Status()> transfer,
                        WaitingForPlace waiting);

}  // namespace temper
