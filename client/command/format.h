// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <google/protobuf/timestamp.pb.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "temper/v1/training_service.pb.h"

namespace temper::command {

// Figures and names as people read them.

std::string HumanDuration(absl::Duration duration);  // "0.4s", "12s", "3m05s", "2h07m", "4d03h"
std::string HumanBytes(int64_t bytes);               // "812 B", "269.0 MB" (powers of 1000)
std::string HumanLoss(double loss);                  // "1.2345", "nan"
std::string HumanRate(double per_second);            // "87.1", "1,234"
std::string HumanPercent(double ratio);              // "23.4%"
std::string HumanTime(const google::protobuf::Timestamp& time,
                      absl::TimeZone zone);  // "2026-01-31 14:03:07"; "-" for 0
absl::Time ToTime(const google::protobuf::Timestamp& time);

std::string StateName(v1::JobState state);      // "RUNNING"
std::string CauseName(v1::FailureCause cause);  // "OUT_OF_MEMORY"; "" for none
std::string PhaseText(v1::Phase phase);         // "reading the model"; "" for none

// Text from elsewhere, safe to show on a terminal: control characters, escape sequences among them, and invalid UTF-8
// become '?'; tabs and line ends become spaces.
std::string Printable(std::string_view text);

// Columns that printable UTF-8 takes on a terminal.
int DisplayWidth(std::string_view text);
// At most `width` columns; what is cut is marked by "…".
std::string Truncated(std::string_view text, int width);

}  // namespace temper::command
