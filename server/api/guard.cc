// SPDX-License-Identifier: Apache-2.0
#include "server/api/guard.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "server/auth/route_rules.h"

namespace temper {
namespace {

// "jobs/x", of "jobs/x/checkpoints/5".
std::string JobOf(std::string_view name) { return std::string(name.substr(0, name.find('/', name.find('/') + 1))); }

}  // namespace

std::string_view AuthorizationOf(const grpc::CallbackServerContext& context) {
  const auto [first, last] = context.client_metadata().equal_range("authorization");
  if (first == last || std::next(first) != last) return {};
  return {first->second.data(), first->second.size()};
}

std::string Guard::NameOf(const Identity& caller, const std::string& peer) {
  return caller.name.empty() ? peer.substr(0, peer.rfind(':')) : caller.name;  // without the port
}

absl::StatusOr<Identity> Guard::PassPage(std::string_view route, std::string_view job, std::string_view authorization,
                                         std::string_view peer) const {
  Identity known;
  auto caller = Admit(route, job, authorization, known);
  if (caller.ok()) return caller;
  const size_t space = route.find(' ');
  Audit(peer, known.name.empty() ? nullptr : &known, route.substr(0, space),
        job.empty() ? route.substr(space + 1) : job, caller.status());
  return caller;
}

absl::StatusOr<Identity> Guard::Admit(std::string_view route, std::string_view job, std::string_view authorization,
                                      Identity& known) const {
  auto caller = authenticator_.Admit(route, authorization, &known);
  if (!known.name.empty() && !limiter_.Take(known.name)) {
    return WithReason(absl::ResourceExhaustedError(absl::StrCat(known.name, " calls too often: wait a second")),
                      "TOO_MANY_CALLS");
  }
  const std::optional<RouteRule> rule = RuleOf(route);
  if (!caller.ok() || rule->admission != Admission::kOwnJob || caller->role == Role::kAdmin) return caller;
  // Whoever has got here may see all jobs: that there is no such job is no secret.
  const auto found = controller_.Get(JobOf(job));
  if (!found.ok()) return found.status();
  const absl::Status owner = Authenticator::CheckOwner(route, *caller, found->spec().owner());
  return owner.ok() ? caller : owner;
}

}  // namespace temper
