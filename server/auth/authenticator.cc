// SPDX-License-Identifier: Apache-2.0
#include "server/auth/authenticator.h"

#include <spdlog/spdlog.h>

#include <optional>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/rpc/status.h"
#include "server/auth/route_rules.h"

namespace temper {
namespace {

constexpr std::string_view kScheme = "bearer ";

// Empty: it is no bearer token.
std::string_view BearerToken(std::string_view authorization) {
  const bool bearer =
      authorization.size() > kScheme.size() &&
      absl::EqualsIgnoreCase(std::string(authorization.substr(0, kScheme.size())), std::string(kScheme));
  return bearer ? authorization.substr(kScheme.size()) : std::string_view();
}

}  // namespace

absl::StatusOr<Identity> Authenticator::Admit(std::string_view route, std::string_view authorization,
                                              Identity* known) const {
  const std::optional<RouteRule> rule = RuleOf(route);
  if (!rule) return absl::PermissionDeniedError(absl::StrCat(std::string(route), " is open to nobody"));
  if (rule->admission == Admission::kAnyone || rule->admission == Admission::kGang) return Identity();
  if (tokens_ == nullptr) return Identity{.name = "", .role = Role::kAdmin};
  const std::string_view token = BearerToken(authorization);
  if (token.empty()) {
    return WithReason(absl::UnauthenticatedError("this server asks for a token: set TEMPER_TOKEN, or `token_file` in "
                                                 "~/.config/temper/config.yaml"),
                      "TOKEN_MISSING");
  }
  auto caller = tokens_->Authenticate(token);
  if (absl::IsUnauthenticated(caller.status())) return caller;
  if (!caller.ok()) {
    // It names files and tokens, and nobody has been let in yet.
    spdlog::error("tokens can't be looked up: {}", std::string(caller.status().message()));
    return absl::UnavailableError("the server can't look up tokens");
  }
  if (known != nullptr) *known = *caller;
  if (caller->role >= rule->role) return caller;
  return WithReason(absl::PermissionDeniedError(absl::StrCat(caller->name, " is ", RoleName(caller->role),
                                                             ", and this takes ", RoleName(rule->role))),
                    "ROLE_TOO_LOW", {{"role", RoleName(caller->role)}, {"needed", RoleName(rule->role)}});
}

absl::Status Authenticator::CheckOwner(std::string_view route, const Identity& caller, std::string_view owner) {
  const std::optional<RouteRule> rule = RuleOf(route);
  if (!rule) return absl::PermissionDeniedError(absl::StrCat(std::string(route), " is open to nobody"));
  if (rule->admission != Admission::kOwnJob || caller.role == Role::kAdmin) return absl::OkStatus();
  if (!caller.name.empty() && caller.name == owner) return absl::OkStatus();
  return WithReason(absl::PermissionDeniedError(
                        absl::StrCat("the job is not ", caller.name, "'s own: only its owner and admins may do this")),
                    "NOT_THE_OWNER");
}

}  // namespace temper
