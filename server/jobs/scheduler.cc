// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/scheduler.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"

namespace temper {
namespace {

// "1 cpu slot", "2 cpu slots".
std::string Slots(int count, const std::string& device) {
  return absl::StrCat(count, " ", device, count == 1 ? " slot" : " slots");
}

std::string HolderList(const std::vector<PlacedJob>& placed, const std::string& device) {
  constexpr size_t kMaxNames = 5;
  std::vector<std::string> names;
  size_t others = 0;
  for (const PlacedJob& job : placed) {
    if (job.device != device) continue;
    if (names.size() < kMaxNames) {
      names.push_back("jobs/" + job.id);
    } else {
      ++others;
    }
  }
  std::string list = absl::StrJoin(names, ", ");
  if (others > 0) absl::StrAppend(&list, " and ", others, " more");
  return list;
}

std::string Explain(const WaitingJob& job, int total, int used, const std::vector<PlacedJob>& holders) {
  if (job.slots > total) {
    return absl::StrCat("can't start here: needs ", Slots(job.slots, job.device), ", the server has ", total);
  }
  std::string reason = absl::StrCat("waiting for ", Slots(job.slots, job.device), ": ", used, " of ", total, " in use");
  if (used > 0) absl::StrAppend(&reason, " by ", HolderList(holders, job.device));
  return reason;
}

}  // namespace

absl::StatusOr<DeviceSlots> ParseDeviceSlots(std::string_view text) {
  DeviceSlots slots;
  const std::vector<std::string> entries = absl::StrSplit(absl::string_view(text.data(), text.size()), ',');
  for (const std::string& entry : entries) {
    const std::vector<std::string> parts = absl::StrSplit(entry, ':');
    int count = 0;
    if (parts.size() != 2 || parts[0].empty() || !absl::SimpleAtoi(parts[1], &count) || count < 0 || count > 4096) {
      return absl::InvalidArgumentError(
          absl::StrCat("slots '", entry, "' must be KIND:COUNT with a count of 0 to 4096, for example cpu:2"));
    }
    if (parts[0] != "cpu" && parts[0] != "cuda") {
      return absl::InvalidArgumentError(absl::StrCat("slots of unknown kind '", parts[0], "': there are cpu and cuda"));
    }
    if (!slots.emplace(parts[0], count).second) {
      return absl::InvalidArgumentError(absl::StrCat("slots of kind '", parts[0], "' are given twice"));
    }
  }
  return slots;
}

Schedule PlanSchedule(const DeviceSlots& slots, std::vector<WaitingJob> waiting, const std::vector<PlacedJob>& placed,
                      WallTime now) {
  std::sort(waiting.begin(), waiting.end(), [](const WaitingJob& a, const WaitingJob& b) {
    return std::tie(b.priority, a.create_time, a.id) < std::tie(a.priority, b.create_time, b.id);
  });
  std::vector<PlacedJob> holders = placed;
  std::map<std::string, int> used;
  for (const PlacedJob& job : placed) used[job.device] += job.slots;

  Schedule schedule;
  std::set<std::string> blocked;  // kinds of device that a job waits for
  for (const WaitingJob& job : waiting) {
    if (job.retry_at && *job.retry_at > now) {
      const std::string time = absl::FormatTime("%H:%M:%S", absl::FromChrono(*job.retry_at), absl::UTCTimeZone());
      schedule.reasons[job.id] = absl::StrCat("waiting until ", time, " UTC to try again");
      continue;
    }
    const auto found = slots.find(job.device);
    const int total = found == slots.end() ? 0 : found->second;
    if (job.slots <= total && !blocked.contains(job.device) && used[job.device] + job.slots <= total) {
      schedule.start.push_back(job.id);
      used[job.device] += job.slots;
      holders.push_back({job.id, job.device, job.slots});
      continue;
    }
    // One that will never fit holds nobody up.
    if (job.slots <= total) blocked.insert(job.device);
    schedule.queue.push_back(job.id);
    schedule.reasons[job.id] = Explain(job, total, used[job.device], holders);
  }
  return schedule;
}

}  // namespace temper
