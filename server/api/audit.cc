// SPDX-License-Identifier: Apache-2.0
#include "server/api/audit.h"

#include <spdlog/spdlog.h>

#include <string>

#include "absl/strings/escaping.h"

namespace temper {
namespace {

constexpr size_t kMaxObject = 200;

std::string OrDash(std::string text) { return text.empty() ? "-" : text; }

}  // namespace

void Audit(std::string_view peer, const Identity* caller, std::string_view action, std::string_view object,
           const absl::Status& result) {
  if (caller != nullptr && caller->name.empty()) return;
  spdlog::info("audit action={} object=\"{}\" identity={} role={} peer={} result={}", action,
               absl::CHexEscape(std::string(object.substr(0, kMaxObject))),
               OrDash(caller == nullptr ? "" : caller->name), caller == nullptr ? "-" : RoleName(caller->role),
               absl::CHexEscape(std::string(peer)), absl::StatusCodeToString(result.code()));
}

void Audit(const grpc::CallbackServerContext& context, const Identity* caller, std::string_view action,
           std::string_view object, const absl::Status& result) {
  Audit(context.peer(), caller, action, object, result);
}

}  // namespace temper
