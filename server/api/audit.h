// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/server_context.h>

#include <string_view>

#include "absl/status/status.h"
#include "server/auth/role.h"

namespace temper {

// A line in the server's log for whoever has to know who did what: for each call that changes something, and each that
// is refused.
//   audit action=CancelJob object="jobs/a" identity=ana role=submitter peer=ipv4:10.0.0.7:51234 result=OK
// `caller` null: it was refused, and nobody knows whose it was. A server that asks for no tokens has nobody to name,
// and writes no line. `object` comes from the caller, and is escaped.
void Audit(std::string_view peer, const Identity* caller, std::string_view action, std::string_view object,
           const absl::Status& result);
void Audit(const grpc::CallbackServerContext& context, const Identity* caller, std::string_view action,
           std::string_view object, const absl::Status& result);

}  // namespace temper
