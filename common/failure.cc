// SPDX-License-Identifier: Apache-2.0
#include "common/failure.h"

#include <string>

#include "absl/strings/cord.h"

namespace temper {
namespace {

constexpr std::string_view kPayload = "temper/failure-cause";

constexpr FailureCause kAll[] = {
    FailureCause::kNone,     FailureCause::kUserInput, FailureCause::kNumerics, FailureCause::kOutOfMemory,
    FailureCause::kRankLost, FailureCause::kPreempted, FailureCause::kLaunch,   FailureCause::kStorage,
    FailureCause::kHang,     FailureCause::kInternal,
};

}  // namespace

std::string_view FailureCauseName(FailureCause cause) {
  switch (cause) {
    case FailureCause::kNone:
      return "NONE";
    case FailureCause::kUserInput:
      return "USER_INPUT";
    case FailureCause::kNumerics:
      return "NUMERICS";
    case FailureCause::kOutOfMemory:
      return "OUT_OF_MEMORY";
    case FailureCause::kRankLost:
      return "RANK_LOST";
    case FailureCause::kPreempted:
      return "PREEMPTED";
    case FailureCause::kLaunch:
      return "LAUNCH";
    case FailureCause::kStorage:
      return "STORAGE";
    case FailureCause::kHang:
      return "HANG";
    case FailureCause::kInternal:
      return "INTERNAL";
  }
  return "INTERNAL";
}

std::optional<FailureCause> FailureCauseFromName(std::string_view name) {
  for (FailureCause cause : kAll) {
    if (name == FailureCauseName(cause)) return cause;
  }
  return std::nullopt;
}

absl::Status WithCause(absl::Status status, FailureCause cause) {
  if (!status.ok()) {
    const std::string_view name = FailureCauseName(cause);
    status.SetPayload({kPayload.data(), kPayload.size()}, absl::Cord(std::string(name)));
  }
  return status;
}

FailureCause CauseOf(const absl::Status& status) {
  if (status.ok()) return FailureCause::kNone;
  if (auto payload = status.GetPayload({kPayload.data(), kPayload.size()})) {
    if (auto cause = FailureCauseFromName(std::string(*payload))) return *cause;
  }
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
      return FailureCause::kUserInput;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDataLoss:
      return FailureCause::kStorage;
    default:
      return FailureCause::kInternal;
  }
}

}  // namespace temper
