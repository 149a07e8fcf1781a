// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/clock.h"

namespace temper {

// Slots of this host by kind of device: {"cpu": 2} lets two ranks on CPU run at a time.
using DeviceSlots = std::map<std::string, int>;

// From "cpu:2" ("kind:count,kind:count"). INVALID_ARGUMENT says what is wrong.
absl::StatusOr<DeviceSlots> ParseDeviceSlots(std::string_view text);

// A job that wants slots.
struct WaitingJob {
  std::string id;
  std::string device;  // kind
  int slots = 1;
  int priority = 0;
  WallTime create_time;
  std::optional<WallTime> retry_at;  // not before
};

// A job that holds slots.
struct PlacedJob {
  std::string id;
  std::string device;
  int slots = 1;
};

struct Schedule {
  // Jobs to start, in this order.
  std::vector<std::string> start;
  // Why each of the others waits, for people.
  std::map<std::string, std::string> reasons;
  // Those of them that wait for slots, in this order.
  std::vector<std::string> queue;
};

// Which waiting jobs start now: by priority (higher first), then age, then id. A job that does not fit keeps those
// behind it on the same kind of device waiting, so that a large job is not starved by small ones. Pure.
Schedule PlanSchedule(const DeviceSlots& slots, std::vector<WaitingJob> waiting, const std::vector<PlacedJob>& placed,
                      WallTime now);

}  // namespace temper
