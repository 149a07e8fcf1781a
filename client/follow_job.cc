// SPDX-License-Identifier: Apache-2.0
#include "client/follow_job.h"

#include <chrono>
#include <optional>

#include "absl/strings/str_cat.h"
#include "client/pauses.h"

namespace temper {
namespace {

// CANCELLED is what a server that shuts down does to a call that it has just accepted; who cancels here is known.
bool WorthReconnecting(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsResourceExhausted(status) || absl::IsCancelled(status);
}

}  // namespace

bool IsEnd(v1::JobState state) {
  return state == v1::JOB_STATE_SUCCEEDED || state == v1::JOB_STATE_FAILED || state == v1::JOB_STATE_CANCELLED;
}

absl::Status FollowJob(const TrainingClient& client, std::string_view job, const FollowOptions& options,
                       absl::FunctionRef<bool(const v1::JobEvent&)> sink,
                       absl::FunctionRef<void(const absl::Status&)> reconnecting) {
  int64_t last = options.after_sequence;
  bool enough = false;     // the sink wants no more
  bool connected = false;  // an event came over the present stream
  bool ever_connected = false;
  absl::Status broken;
  const auto on_event = [&](const v1::JobEvent& event) {
    if (event.sequence() != last + 1) {
      broken = absl::DataLossError(absl::StrCat("the server sent event ", event.sequence(), " of ", ToJobName(job),
                                                " after event ", last, "; events must come without gaps"));
      return false;
    }
    last = event.sequence();
    connected = ever_connected = true;
    enough = !sink(event);
    return !enough;
  };

  std::optional<std::chrono::steady_clock::time_point> lost;
  Pauses pauses(client.options().stop);
  for (;;) {
    connected = false;
    const absl::Status status = client.WatchJob(job, last, on_event);
    if (!broken.ok()) return broken;
    if (enough || status.ok()) return absl::OkStatus();
    if (client.options().stop.stop_requested()) return absl::CancelledError("stopped");
    if (!WorthReconnecting(status) || !ever_connected) return status;

    const auto now = std::chrono::steady_clock::now();
    if (connected || !lost) {
      lost = now;
      pauses.Restart();
      reconnecting(status);
    }
    if (absl::FromChrono(now - *lost) > options.patience) return status;
    pauses.Next();
  }
}

}  // namespace temper
