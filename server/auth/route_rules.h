// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string_view>

#include "server/auth/role.h"

namespace temper {

// What a call needs of its caller.
enum class Admission {
  kAnyone,  // no token
  kToken,   // a token of at least `role`
  kOwnJob,  // the same, and the job is the caller's own; an admin's are all of them
  kGang,    // the token of the gang that the call is about (JobController::AttachNode)
};

struct RouteRule {
  Admission admission = Admission::kToken;
  Role role = Role::kAdmin;
};

// The one table of who may call what: "/temper.v1.TrainingService/GetJob" for a method, "GET /metrics" for a page.
// None: nobody may. A test compares it with every method and page that a server has.
std::optional<RouteRule> RuleOf(std::string_view route);

}  // namespace temper
