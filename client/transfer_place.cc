// SPDX-License-Identifier: Apache-2.0
#include "client/transfer_place.h"

#include <chrono>
#include <optional>

#include "client/pauses.h"
#include "common/rpc/status.h"

namespace temper {

absl::Status AwaitPlace(const PlaceOptions& options, absl::FunctionRef<absl::Status()> transfer,
                        WaitingForPlace waiting) {
  using std::chrono::steady_clock;
  Pauses pauses(options.stop);
  std::optional<steady_clock::time_point> refused;
  for (;;) {
    absl::Status status = transfer();
    if (ReasonOf(status) != "TOO_MANY_STREAMS") return status;
    if (!refused) {
      refused = steady_clock::now();
      waiting(status);
    }
    if (absl::FromChrono(steady_clock::now() - *refused) > options.patience) return status;
    pauses.Next();
    if (options.stop.stop_requested()) return absl::CancelledError("stopped");
  }
}

}  // namespace temper
