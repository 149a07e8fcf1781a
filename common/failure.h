// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string_view>

#include "absl/status/status.h"

namespace temper {

// Why a gang ended badly. The same list as temper.v1.FailureCause, for code that must not see protobuf.
enum class FailureCause {
  kNone,
  kUserInput,    // model, data or job file are wrong: not retried
  kNumerics,     // loss or gradients are not finite: not retried
  kOutOfMemory,  // not retried
  kRankLost,     // a process of the gang died
  kPreempted,    // the platform took the gang away: retried free of charge
  kLaunch,       // the gang could not be started
  kStorage,      // reading or writing storage failed
  kHang,         // no progress for too long
  kInternal,     // a bug in temper
};

// Attaches `cause` to a status that is not OK; it travels with copies of the status.
absl::Status WithCause(absl::Status status, FailureCause cause);

// The attached cause. Without one: INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION, OUT_OF_RANGE and UNIMPLEMENTED
// are kUserInput, UNAVAILABLE and DATA_LOSS kStorage, anything else kInternal. kNone for an OK status.
FailureCause CauseOf(const absl::Status& status);

// "USER_INPUT", "NUMERICS", …
std::string_view FailureCauseName(FailureCause cause);

// The other way. Nothing for a name that is none of these.
std::optional<FailureCause> FailureCauseFromName(std::string_view name);

}  // namespace temper
