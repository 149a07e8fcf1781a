// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace temper {

// absl::Status is what the code passes around, grpc::Status what goes over the wire. Details travel as payloads of the
// former (named by the type URL of a google.rpc message) and as google.rpc.Status in the latter.

// One wrong field of a request, by its path: {"spec.training.learning_rate", "must be over 0 and at most 1, not 3"}.
struct FieldViolation {
  std::string field;
  std::string description;

  bool operator==(const FieldViolation&) const = default;
};

// INVALID_ARGUMENT with google.rpc.BadRequest. The message lists the violations, "field: description", for people who
// see nothing else. At least one violation.
absl::Status InvalidFields(const std::vector<FieldViolation>& violations);

// Attaches google.rpc.ErrorInfo: `reason` in UPPER_SNAKE_CASE, domain "temper".
absl::Status WithReason(absl::Status status, std::string_view reason, std::map<std::string, std::string> metadata = {});

// What was attached; empty when nothing was.
std::vector<FieldViolation> FieldViolationsOf(const absl::Status& status);
std::string ReasonOf(const absl::Status& status);
std::map<std::string, std::string> ReasonMetadataOf(const absl::Status& status);

// To the wire. A status without ErrorInfo gets one whose reason is the name of its code ("NOT_FOUND"). Payloads that
// are not google.rpc messages stay at home. gRPC bounds the size of all headers together, so a long message is cut (at
// a character) and violations that do not fit are left out, the last one saying how many.
grpc::Status ToGrpcStatus(const absl::Status& status);

// From the wire, details included.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace temper
